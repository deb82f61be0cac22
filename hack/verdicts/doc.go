// Package verdicts has no code of its own. Its test runs a table of small
// programs, each of which meets one limit or ends in one way, and holds every
// part of the verdict to what the table says, on whatever host it runs: where a
// limit that a row asks for cannot be enforced, the row must be refused.
package verdicts
