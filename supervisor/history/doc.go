// Package history keeps ended executions and their output in one file, so that
// they can be asked for after their directory is gone.
//
// The file is a bbolt database. Its buckets:
//
//	meta     version, totals
//	records  created (8 bytes, nanoseconds) + id (16)  -> summary, digest, sizes
//	ids      id                                       -> created
//	bodies   id -> bucket: request, response, stdout and stderr in chunks of 1 MiB,
//	         and when they came
//	staging  id                                       -> a body that is being written
//	removed  id                                       -> number in order
//	order    number                                   -> id, of the removed ones
//
// Every value begins with a checksum of its key and itself, so a damaged one is
// reported and never taken for true. The pages of the file are checked when it
// is opened (check.go); a file that is no sound tree is set aside.
package history
