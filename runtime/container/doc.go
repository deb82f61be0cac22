// Package container runs OCI containers for other orchestrators: it is what the
// program capsule-oci does, behind its command line.
//
// A container is built and started by different processes, and nothing of capsule's
// stays between them. Its first process waits at a gate, a listening socket that it
// alone holds; who connects to it lets it go:
//
//	create                         container                     start
//	   | clone, maps --------------> namespaces, mounts
//	   | hooks, terminal <---------> stops for them
//	   | record <------------------- one byte: it is built
//	   exits                         accept(gate) <------------- connect
//	                                 execve closes the line ---> it runs
//	                                 or a report -------------> it failed at this step
//
// Everything else is in the state directory: a directory for each container with one
// record, replaced by rename. What a record says of a process counts only while a
// process with that number, start time and boot exists. A container is created while
// its process still holds the gate, so no step between two writes can be lost.
//
// The walls are those of the configuration. Its plan is compiled by runtime/plan and
// executed by runtime/launch like that of every sandbox.
package container
