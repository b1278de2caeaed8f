# Run the program $1 with the argument $2.
find_python || { echo "problem $problem"; exit; }
exec "$python" -I -c "$1" "$2"
