// Package scope asks systemd for the control groups of containers: each is a transient
// scope, which is systemd's word for a group of processes that it has not started. What
// the group may use is told to systemd too, since it writes its own idea of that anew
// whenever it is reloaded.
package scope
