echo "hello, ${1:-nobody}, from $(uname -n)"
