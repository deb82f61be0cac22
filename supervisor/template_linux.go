package supervisor

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/capsule-run/capsule/shim/shimapi"
	"github.com/capsule-run/capsule/spec"
	"github.com/capsule-run/capsule/spec/fault"
	"github.com/capsule-run/capsule/supervisor/api"
)

// template is one kind of sandbox that the pool prepares. Its fields are guarded
// by the pool's mutex.
type template struct {
	key     pattern // of the requests that it is for; zero: it is not known yet
	request []byte  // of which its sandboxes are made; nil: the usual walls
	owner   uint32  // whose policy holds
	ready   []*ready
	want    int              // so many are to be ready
	asked   time.Time        // when last somebody asked for one
	rest    time.Time        // nothing is prepared before
	vain    map[uint32]*vain // callers whose last requests wanted another
}

// vain is what a caller did with a template whose sandboxes its requests did not fit.
type vain struct {
	unfit int       // so many requests in a row
	until time.Time // it is given none before
}

// spares tells whether a caller gets nothing of the template for now.
func (t *template) spares(caller uint32, now time.Time) bool {
	v := t.vain[caller]
	return v != nil && now.Before(v.until)
}

// wasted notes a request of a caller that did not fit. A caller that had many in a
// row gets nothing for the time d: each has cost the preparation of a sandbox. The
// others are not to pay for it.
func (t *template) wasted(caller uint32, d time.Duration) {
	v := t.vain[caller]
	if v == nil {
		if len(t.vain) >= vainMost {
			clear(t.vain)
		}
		if t.vain == nil {
			t.vain = map[uint32]*vain{}
		}
		v = &vain{}
		t.vain[caller] = v
	}
	if v.unfit++; v.unfit == unfitInARow {
		v.unfit, v.until = 0, time.Now().Add(d)
	}
}

func (t *template) lacks(now time.Time) bool { return len(t.ready) < t.want && !now.Before(t.rest) }

// Bounds of what is learned from requests.
const (
	templatesMost = 16  // templates at a time
	keysMost      = 256 // keys of requests that found no fitting sandbox
	vainMost      = 256 // callers whose requests did not fit; of more all are forgotten
)

// bare is a request without what belongs to its command, which stays out of a
// sandbox that another one may get, and without bounds that its group keeps once it has them.
func bare(req *spec.Request) *spec.Request {
	b := *req
	b.Command, b.Environment, b.Stdin, b.Labels = []string{"true"}, nil, nil, nil
	b.Resources.CPUQuota, b.Resources.CPUTimeMS = nil, nil
	b.Isolation.Require = nil // asked of the sandbox when a request takes it
	return &b
}

// pattern stands for a request without what is decided after its sandbox is built: two
// requests with the same one can use the same sandbox. It is a digest, since many are
// remembered and requests may be long.
type pattern [sha256.Size]byte

func patternOf(req *spec.Request) pattern { return sha256.Sum256(req.Template().Encode()) }

// learnable tells whether sandboxes of such a request can be prepared at all.
func learnable(req *spec.Request) bool {
	return req.Isolation.Backend == spec.BackendNamespace && req.Isolation.Init
}

// usual is the template of requests that say nothing of their walls.
func (p *pool) usual() *template { return p.templates[0] }

// of is the template for requests with that key; nil: there is none.
func (p *pool) of(key pattern) *template {
	i := slices.IndexFunc(p.templates, func(t *template) bool { return t.key == key })
	if i < 0 {
		return nil
	}
	return p.templates[i]
}

// learn makes a template of a request that no prepared sandbox fits. One that was
// seen once may be the only one of its kind, and it has been seen before.
func (p *pool) learn(owner uint32, req *spec.Request, key pattern) *template {
	if len(p.templates) == templatesMost {
		p.forget(slices.MinFunc(p.templates[1:], func(a, b *template) int { return a.asked.Compare(b.asked) }))
	}
	t := &template{key: key, request: bare(req).Encode(), owner: owner}
	p.templates = append(p.templates, t)
	return t
}

// forget drops a template with its sandboxes.
func (p *pool) forget(t *template) {
	p.drop(t, len(t.ready))
	t.want = 0
	p.templates = slices.DeleteFunc(p.templates, func(o *template) bool { return o == t })
}

// note keeps what became of requests with that key. Of too many all is forgotten:
// each costs one unfit sandbox to learn anew.
func (p *pool) note(key pattern, k known) {
	if len(p.keys) >= keysMost {
		clear(p.keys)
	}
	p.keys[key] = k
}

// known is what the pool knows of requests with some key.
type known byte

const (
	knownUnfit known = iota + 1 // the usual sandbox does not fit
	knownVain                   // no sandbox can be prepared for them
)

// robbable is how long nobody may have asked for the sandboxes of a template until
// another one takes its place.
const robbable = time.Second

// grow asks for more sandboxes of a template, at the cost of one that fewer want
// when the pool is full.
func (p *pool) grow(t *template) {
	t.want = max(2*t.want, 1)
	for {
		all := 0
		var least *template
		for _, o := range p.templates {
			all += o.want
			if o != t && o.want > 0 && time.Since(o.asked) > robbable && (least == nil || o.asked.Before(least.asked)) {
				least = o
			}
		}
		if all <= p.limits.Size {
			return
		}
		if least == nil {
			t.want -= min(all-p.limits.Size, t.want)
			return
		}
		least.want--
		p.drop(least, len(least.ready)-least.want)
	}
}

// message is what the shim is told that makes a sandbox of the template.
func (p *pool) message(id string, t *template) (shimapi.Bootstrap, error) {
	request := t.request
	if request == nil {
		var err error
		if request, err = p.usualWalls(t); err != nil {
			return shimapi.Bootstrap{}, err
		}
	}
	boot := p.s.bootstrap(id, t.owner, []string{"true"})
	boot.Template, boot.Request = true, request
	if len(boot.Request) > shimapi.RequestMax {
		return boot, fault.New(fault.OutOfRange, "prepare a sandbox", "the defaults are too long")
	}
	return boot, nil
}

// usualWalls is the request of the usual template, which is made once for each policy.
func (p *pool) usualWalls(t *template) ([]byte, error) {
	p.mu.Lock()
	walls, age := p.walls, p.age
	p.mu.Unlock()
	if walls != nil {
		return walls, nil
	}
	req, err := p.s.resolve(t.owner, &api.StartRequest{Request: []byte(`{"command":["true"]}`)})
	if err != nil {
		return nil, err
	}
	walls = bare(req).Encode()
	p.mu.Lock()
	defer p.mu.Unlock()
	t.key = patternOf(req)
	if p.age == age {
		p.walls = walls
	}
	return walls, nil
}
