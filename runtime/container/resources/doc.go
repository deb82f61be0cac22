// Package resources makes the control groups of containers: at the place that
// their configuration names, with every resource that it has. What the host cannot
// set is a fault that names the field; nothing is passed over.
//
// It is not runtime/cgroup, which makes the groups of executions: those lie where
// capsule wants them, and have the limits that a request can express.
package resources
