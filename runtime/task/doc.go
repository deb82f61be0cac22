// Package task is containerd's task service: it runs the containers of one pod, or one
// that belongs to none, with runtime/container in this process, whose children they are.
//
//	containerd          server                            containers
//	   | Create ---------> mount rootfs, open FIFOs
//	   |                   container.Create ----------------> built, at the gate
//	   | Start ----------> container.Start -----------------> run
//	   |                   (nothing)       <-- FIFO --------- output, without a copy of ours
//	   | <-- TaskExit ---- pidfd, wait4 <-------------------- end
//	   | Delete ---------> container.Delete, unmount, close
//	   | Shutdown -------> exit, when no container is left
//
// A container gets the FIFOs themselves, so its output costs no process of ours a wakeup
// and goes on when this one is killed. The server keeps the other end of each open: a
// containerd that is being restarted is no broken pipe. Only a terminal, and an output
// that is a file, is copied.
//
// Everything about a container is in its bundle, so that Delete, which containerd calls
// in a process of its own when the server is gone, finds it.
package task
