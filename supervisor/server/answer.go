package server

import (
	"context"
	"errors"
)

// smallAnswer is what an answer may have without being counted, in bytes: calls are.
const smallAnswer = 64 << 10

// largeAnswer counts what the answer of a call holds until the connection takes it. A
// caller that asks and does not read would make the server hold an answer for each call.
type largeAnswer struct {
	c *connection
	// ctx is the call's as ttrpc made it, which ends when the connection has taken the
	// answer, or is over.
	ctx  context.Context
	held int // bytes that are counted
}

// answerKey is under which a call's context has its largeAnswer.
type answerKey struct{}

// roomFor tells whether the answer of the call that ctx is of may have so many bytes
// more. They are counted then.
func roomFor(ctx context.Context, bytes int) bool {
	a, ok := ctx.Value(answerKey{}).(*largeAnswer)
	return !ok || a.room(bytes)
}

func (a *largeAnswer) room(bytes int) bool {
	if bytes <= smallAnswer || a.c.account.own {
		return true
	}
	if a.ctx.Err() != nil || !a.c.account.owe(bytes) {
		return false
	}
	a.held += bytes
	context.AfterFunc(a.ctx, func() {
		// Without a deadline the call would still wait for its reader.
		if errors.Is(a.ctx.Err(), context.DeadlineExceeded) {
			a.c.gate.end(errors.New("an answer was not taken in the time of its call"))
		}
		a.c.account.took(bytes)
	})
	return true
}
