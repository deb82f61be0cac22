package plan

// AnnotationSkeleton is the OCI annotation under which shim/bundle stores a
// Skeleton as JSON. When it is present, the root of the sandbox is a fresh
// tmpfs with these entries, and the bundle's root.path directory is only the
// place where that tmpfs is mounted. Mount points of config.json's mounts are
// made in it as needed.
const AnnotationSkeleton = "run.capsule.skeleton"

// AnnotationExecutionID is the OCI annotation with the id of the execution.
const AnnotationExecutionID = "run.capsule.execution-id"

// Skeleton is what stands in the tmpfs root besides mounts.
type Skeleton struct {
	// SizeBytes and Inodes bound the tmpfs of the root. Zero: 1 MiB and 4096.
	SizeBytes int64 `json:"size_bytes,omitempty"`
	Inodes    int64 `json:"inodes,omitempty"`
	// Directories are made with mode 0755 besides the mount points.
	Directories []string `json:"directories,omitempty"`
	// Symlinks are made in order.
	Symlinks []Symlink `json:"symlinks,omitempty"`
	// Files are written with mode 0644, in order; parents are made as needed.
	Files []File `json:"files,omitempty"`
}

// Symlink is a symbolic link of the skeleton.
type Symlink struct {
	Path   string `json:"path"`   // absolute and clean, inside the sandbox
	Target string `json:"target"` // as given to symlink(2)
}

// File is a small regular file of the skeleton.
type File struct {
	Path    string `json:"path"` // absolute and clean, inside the sandbox
	Content string `json:"content"`
}
