"""What only a GPU can show: `make gpu-check`. Speed, memory and exactness at real size, on random weights, offline."""
