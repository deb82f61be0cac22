// Package attack is the attacker of hack/walls and hack/escape: what a hostile
// command tries from inside a sandbox, each under a name. An attack says in one
// line what came of it; a test knows what must. Each is harmless when it
// works, because tests also run it with the wall in front of it taken away.
package attack
