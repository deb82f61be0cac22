// Package doctest holds the documents to the tree: commands that a reader is told
// to type are typed, examples are run, links lead somewhere, diagrams name
// packages and types that exist, and each code of a fault is explained.
package doctest
