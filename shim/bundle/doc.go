// Package bundle translates a resolved execution request and the facts of the
// host into an OCI runtime-spec configuration, and moves such configurations
// to and from disk.
//
// Build is pure: the same request and the same facts give the same
// configuration on every operating system, without privilege. Package host
// gathers the facts; runtime/plan turns the configuration into kernel steps.
//
// # What a payload finds
//
// The root is a read-only tmpfs described by the annotation
// plan.AnnotationSkeleton. In it stand the host's system directories
// (recursively read-only, nosuid, nodev), a synthesised /etc, a fresh /proc, a
// minimal /dev, and the writable tmpfs /tmp, /var/tmp, /run and /workspace.
// With isolation.rootfs the top-level entries of that directory, its /etc
// included, take the place of the host's and of the synthesised /etc.
//
// The user of the payload is called "capsule" (or "root" or "nobody" when its
// uid is 0 or 65534) and its home is /workspace. The environment is PATH, HOME
// and LANG (see minimumEnvironment), overridden and extended by the request.
package bundle
