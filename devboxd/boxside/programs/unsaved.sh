# Print the git work that exists on this box only: one line for each repository that has some, with tabs between
# path, files not committed, commits on no remote, and stashes. $1: how many repositories to look at, at most.
command -v git >/dev/null 2>&1 || exit 0
find "$HOME" -maxdepth 5 -name .git -prune 2>/dev/null | head -n "$1" | while IFS= read -r found; do
  repository=${found%/.git}
  files=$(git -C "$repository" status --porcelain 2>/dev/null | wc -l | tr -d ' ')
  commits=$(git -C "$repository" rev-list --count --branches --not --remotes 2>/dev/null || echo 0)
  stashes=$(git -C "$repository" stash list 2>/dev/null | wc -l | tr -d ' ')
  if [ "$files$commits$stashes" != 000 ]; then
    printf '%s\t%s\t%s\t%s\n' "$repository" "$files" "$commits" "$stashes"
  fi
done
exit 0
