// Package bpf reads programs of classic BPF as seccomp(2) takes them: it
// parses, prints and evaluates them. It covers the instructions that
// libseccomp emits and names any other as an error. It is pure Go and needs no
// kernel.
package bpf
