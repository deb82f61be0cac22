package server

import (
	"context"
	"io"

	"github.com/containerd/log"
	"github.com/sirupsen/logrus"
)

// quiet keeps what ttrpc's server logs of its callers' mistakes, at level error
// and to stderr, out of the process's log: who connects could fill it.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	l.SetLevel(logrus.PanicLevel)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}
