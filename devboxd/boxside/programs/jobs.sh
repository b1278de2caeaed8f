# Run the program $1 with its own text and the request $2 (JSON).
find_python || { echo "{\"problem\": \"$problem\"}"; exit; }
exec "$python" -I -c 'import sys; exec(sys.argv[1])' "$1" "$2" devbox-jobs
