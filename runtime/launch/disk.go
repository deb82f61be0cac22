package launch

// FullDisk is a tmpfs that has no room left.
type FullDisk struct {
	Path string
	// Bytes and Inodes tell of which there are none left.
	Bytes, Inodes bool
}
