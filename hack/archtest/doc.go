// Package archtest holds the rules of the tree that a compiler does not check,
// as ordinary tests: which package may import which, what the programs may
// link, and the shape of the sources. A rule that has to give way is changed
// here, with its reason, in the commit that needs it.
package archtest
