// Command capsulectl is the client of capsule. `capsulectl run` executes one
// command in a fresh sandbox and reports its verdict; with no daemon running it
// embeds the supervisor in its own process.
//
// The run verb is on the path of every execution and every process starts cold,
// so main dispatches it without building the cli.App. The App holds the same
// verb with the same action and the same table of options (options.go), for
// help and routing; there is one parser and one definition.
package main
