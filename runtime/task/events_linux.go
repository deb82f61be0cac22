package task

import (
	"errors"
	"sync"
	"time"

	"github.com/capsule-run/capsule/runtime/wire"
)

// publisher tells containerd what happens, in the order in which it happened.
type publisher struct {
	client    wire.Client
	namespace string
	log       func(error)

	mu    sync.Mutex
	queue []wire.Message
	more  *sync.Cond // something is in the queue, or the queue has become empty
}

const (
	// waiting is how many events are kept for a containerd that does not answer. It
	// asks for the state of each task when it is started anew.
	waiting = 1024
	// answering is how long containerd may take for one event.
	answering = 10 * time.Second
	// attempts at one event, the pauses between which are doubled from firstPause on.
	attempts   = 7
	firstPause = 100 * time.Millisecond
)

func newPublisher(path, namespace string, log func(error)) *publisher {
	p := &publisher{client: wire.Client{Path: path}, namespace: namespace, log: log}
	p.more = sync.NewCond(&p.mu)
	go p.run()
	return p
}

// publish queues an event: containerd.events.NAME of api/events/task.proto.
func (p *publisher) publish(topic, name string, event wire.Message) {
	envelope := wire.Message(nil).PutTime(1, time.Now()).PutString(2, p.namespace).PutString(3, topic).PutAny(4, "containerd.events."+name, event)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == waiting {
		p.log(errors.New("containerd takes no events: " + topic + " is not told"))
		return
	}
	p.queue = append(p.queue, wire.Message(nil).Put(1, envelope))
	p.more.Broadcast()
}

// run sends what is queued. An event stays in the queue until it is settled.
func (p *publisher) run() {
	for {
		p.mu.Lock()
		for len(p.queue) == 0 {
			p.more.Wait()
		}
		event := p.queue[0]
		p.mu.Unlock()
		p.forward(event)
		p.mu.Lock()
		if p.queue = p.queue[1:]; len(p.queue) == 0 {
			p.queue = nil
			p.more.Broadcast()
		}
		p.mu.Unlock()
	}
}

func (p *publisher) forward(event wire.Message) {
	pause := firstPause
	for try := 1; ; try++ {
		err := p.client.Call("containerd.services.events.ttrpc.v1.Events", "Forward", event, answering)
		var refused *wire.Status
		if err == nil {
			return
		}
		if try == attempts || errors.As(err, &refused) {
			p.log(err)
			return
		}
		time.Sleep(pause)
		pause *= 2
	}
}

// flush waits until everything is told, but no longer than that.
func (p *publisher) flush(within time.Duration) {
	late := false
	timer := time.AfterFunc(within, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		late = true
		p.more.Broadcast()
	})
	defer timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) > 0 && !late {
		p.more.Wait()
	}
}
