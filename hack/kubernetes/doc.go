// Package kubernetes has no code: this directory holds what puts capsule on the nodes of a
// cluster (see docs/kubernetes.md), and its tests.
package kubernetes
