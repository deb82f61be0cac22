package plan

// Scratch is the memory of a plan that was made to see whether it can be, for the next one:
// making that ends the first. Nil has none.
type Scratch struct {
	setup []Step
	// Blocks of arguments: of the last plan, and of those the ones that the next has taken.
	free, used [][]Arg
}

// begin gives room for the steps of the next plan.
func (s *Scratch) begin() []Step {
	if s == nil || s.setup == nil {
		return make([]Step, 0, usualSteps)
	}
	s.free, s.used = s.used, nil
	return s.setup[:0]
}

// block gives room for at least n arguments.
func (s *Scratch) block(n int) []Arg {
	if s == nil {
		return make([]Arg, 0, max(usualArgs, n))
	}
	var b []Arg
	if len(s.free) > 0 && cap(s.free[0]) >= n {
		b, s.free = s.free[0][:0], s.free[1:]
	} else {
		b = make([]Arg, 0, max(usualArgs, n))
	}
	s.used = append(s.used, b)
	return b
}
