package plan

import (
	"slices"
	"strings"
)

// MountOptions are the words that Container knows among the options of a mount; a file
// system may have others.
func MountOptions() []string {
	list := []string{"bind", "rbind", "defaults", "idmap", "ridmap"}
	for name := range attributes {
		list = append(list, name, "r"+name)
	}
	for name := range propagations {
		list = append(list, name)
	}
	for name := range superFlags {
		list = append(list, name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// CapabilityNames are those of capabilities(7) with their prefix.
func CapabilityNames() []string {
	list := strings.Fields(capabilityNames)
	for i := range list {
		list[i] = "CAP_" + list[i]
	}
	return list
}
