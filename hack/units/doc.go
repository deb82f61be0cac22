// Package units tests the systemd units of cmd/capsuled/systemd under a real
// systemd, on a machine that is thrown away. hack/vmtest.sh builds it, with the
// build tag systemd, for a machine named systemd:root.
package units
