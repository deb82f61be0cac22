package bpf

import (
	"encoding/binary"
	"math"
	"slices"
)

// Compact is a program that gives every call the same answer as raw, in fewer
// instructions. libseccomp compares with each number that it has a rule for, where
// neighbours with one answer need one comparison for all of them. What looks at
// arguments stays as it is. A program of another form than libseccomp's for one
// architecture comes back unchanged.
//
// The kernel checks a program and makes machine code of it each time that it is loaded,
// so its length is what a sandbox pays for. How far a call has to go in it counts less:
// which numbers are always allowed the kernel finds out once.
func Compact(raw []byte) ([]byte, error) {
	program, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	old := decisionsOf(program)
	if old == nil {
		return raw, nil
	}
	short := lay(shorten(program, old))
	// Little of the above has to be believed: what comes out is compared with what went
	// in, as a whole, and by running both around each of their constants.
	if len(short) >= len(program) || !equal(program, old, short, decisionsOf(short)) || !sameAnswers(program, short) {
		return raw, nil
	}
	out := make([]byte, 0, len(short)*InstructionSize)
	for _, in := range short {
		out = appendInstruction(out, in)
	}
	_, err = Parse(out)
	return out, err
}

func appendInstruction(raw []byte, in Instruction) []byte {
	raw = binary.NativeEndian.AppendUint16(raw, in.Code)
	raw = append(raw, in.Jt, in.Jf)
	return binary.NativeEndian.AppendUint32(raw, in.K)
}

// span are numbers that lead to the same instruction: an answer, or the first look at
// an argument.
type span struct {
	first, last uint32
	at          int
}

// decisionsOf are the spans of all numbers, in order, of a program that loads the
// architecture, compares it, and then answers or loads the number. Nil: another form.
func decisionsOf(program []Instruction) []span {
	if len(program) < 4 || program[0] != (Instruction{Code: codeLoad, K: 4}) || program[1].Code != codeJEQ {
		return nil
	}
	number, foreign := successors(program, 1)
	if program[number] != (Instruction{Code: codeLoad}) || program[foreign].Code != codeRet {
		return nil
	}
	spans, ok := spread(program, number+1, 0, math.MaxUint32, nil)
	if !ok {
		return nil
	}
	return spans
}

// spread appends the spans of the numbers from low to high, which are loaded before
// instruction pc. Not ok: it computes with a number.
func spread(program []Instruction, pc int, low, high uint32, spans []span) ([]span, bool) {
	in := program[pc]
	var yes, no int
	switch in.Code {
	case codeJEQ, codeJGT, codeJGE:
		yes, no = successors(program, pc)
	}
	part := func(to int, low, high uint32) bool {
		ok := true
		if low <= high {
			spans, ok = spread(program, to, low, high, spans)
		}
		return ok
	}
	below, above := in.K-1, in.K+1 // for a comparison, after a look at the ends
	switch {
	case in.Code == codeJA:
		return spread(program, pc+1+int(in.K), low, high, spans)
	case in.Code == codeLoad && in.K == 0:
		return spread(program, pc+1, low, high, spans)
	case in.Code == codeLoad, in.Code == codeRet:
		return append(spans, span{low, high, pc}), true
	case in.Code == codeJGE && in.K == 0, in.Code == codeJGT && in.K == math.MaxUint32:
		return nil, false // always, or never
	case in.Code == codeJGE:
		ok := part(no, low, min(high, below)) && part(yes, max(low, in.K), high)
		return spans, ok
	case in.Code == codeJGT:
		ok := part(no, low, min(high, in.K)) && part(yes, max(low, above), high)
		return spans, ok
	case in.Code == codeJEQ && (in.K < low || in.K > high):
		return spread(program, no, low, high, spans)
	case in.Code == codeJEQ:
		ok := (in.K == 0 || part(no, low, below)) && part(yes, in.K, in.K) && (in.K == math.MaxUint32 || part(no, above, high))
		return spans, ok
	}
	return nil, false
}

// equal compares what two programs answer, and to which architecture.
func equal(a []Instruction, of []span, b []Instruction, with []span) bool {
	if of == nil || with == nil || a[1].K != b[1].K {
		return false
	}
	_, i := successors(a, 1)
	_, j := successors(b, 1)
	if a[i].K != b[j].K {
		return false
	}
	known := map[[2]int]bool{}
	for len(of) > 0 && len(with) > 0 {
		x, y := of[0], with[0]
		if x.first > y.last || y.first > x.last || !same(a, x.at, b, y.at, known) {
			return false
		}
		if x.last <= y.last {
			of = of[1:]
		}
		if y.last <= x.last {
			with = with[1:]
		}
	}
	return len(of) == 0 && len(with) == 0
}

// sameAnswers runs two programs for the numbers at and beside each constant of either, for
// their architecture and for another, with arguments of zeros and of ones.
func sameAnswers(a, b []Instruction) bool {
	for _, in := range slices.Concat(a, b) {
		for _, number := range []uint32{in.K - 1, in.K, in.K + 1} {
			for _, arch := range []uint32{a[1].K, ^a[1].K} {
				for _, arg := range []uint64{0, math.MaxUint64} {
					d := Data{Arch: arch, Number: number, InstructionPointer: arg, Args: [6]uint64{arg, arg, arg, arg, arg, arg}}
					x, _ := Run(a, &d)
					if y, _ := Run(b, &d); x != y {
						return false
					}
				}
			}
		}
	}
	return true
}

// same tells whether what begins at two instructions does the same, step by step.
func same(a []Instruction, i int, b []Instruction, j int, known map[[2]int]bool) bool {
	i, j = landing(a, i), landing(b, j)
	if result, ok := known[[2]int{i, j}]; ok {
		return result
	}
	x, y := a[i], b[j]
	result := x.Code == y.Code && x.K == y.K
	switch x.Code {
	case codeRet:
	case codeLoad, codeAnd:
		result = result && same(a, i+1, b, j+1, known)
	default:
		if result {
			yes, no := successors(a, i)
			alsoYes, alsoNo := successors(b, j)
			result = same(a, yes, b, alsoYes, known) && same(a, no, b, alsoNo, known)
		}
	}
	known[[2]int{i, j}] = result
	return result
}

// successors are where a condition leads to.
func successors(program []Instruction, pc int) (yes, no int) {
	return landing(program, pc+1+int(program[pc].Jt)), landing(program, pc+1+int(program[pc].Jf))
}

// landing is where jumps from an instruction end.
func landing(program []Instruction, pc int) int {
	for program[pc].Code == codeJA {
		pc += 1 + int(program[pc].K)
	}
	return pc
}

// node is an instruction whose successors have no place yet. What is no condition has
// its successor in no.
type node struct {
	code    uint16
	k       uint32
	yes, no *node
	at      int
	// far: the successor is out of a condition's reach, or does not follow.
	farYes, farNo bool
}

// shorten makes the nodes of a program that decides by halving the spans. The answers to
// numbers stand right behind that, in reach of all of it, and those to arguments at
// the end.
func shorten(program []Instruction, spans []span) []*node {
	numbers, arguments := graph{program: program, answers: map[uint32]*node{}}, graph{program: program, answers: map[uint32]*node{}, kept: map[int]*node{}}
	numbers.beyond = &arguments
	_, foreign := successors(program, 1)
	number := &node{code: codeLoad}
	arch := &node{code: codeJEQ, k: program[1].K, yes: number, no: numbers.to(foreign)}
	list := []*node{{code: codeLoad, k: 4, no: arch}, arch, number}
	number.no = numbers.halve(numbers.merge(spans), &list)
	list = append(list, numbers.order...)
	pcs := make([]int, 0, len(arguments.kept))
	for pc := range arguments.kept {
		pcs = append(pcs, pc)
	}
	slices.Sort(pcs) // jumps lead ahead only
	for _, pc := range pcs {
		list = append(list, arguments.kept[pc])
	}
	return append(list, arguments.order...)
}

// graph has the nodes that there are in a part of a program.
type graph struct {
	program []Instruction
	answers map[uint32]*node
	order   []*node       // of answers
	kept    map[int]*node // what is no answer, by its place in program
	beyond  *graph        // what is no answer is there
}

// to is the node of an instruction, with all that follows.
func (g *graph) to(pc int) *node {
	pc = landing(g.program, pc)
	in := g.program[pc]
	if in.Code == codeRet {
		n := g.answers[in.K]
		if n == nil {
			n = &node{code: codeRet, k: in.K}
			g.answers[in.K] = n
			g.order = append(g.order, n)
		}
		return n
	}
	if g.beyond != nil {
		return g.beyond.to(pc)
	}
	if n := g.kept[pc]; n != nil {
		return n
	}
	n := &node{code: in.Code, k: in.K}
	g.kept[pc] = n
	if in.Code == codeLoad || in.Code == codeAnd {
		n.no = g.to(pc + 1)
	} else {
		yes, no := successors(g.program, pc)
		n.yes, n.no = g.to(yes), g.to(no)
	}
	return n
}

// merge joins neighbours that lead to the same node.
func (g *graph) merge(spans []span) []span {
	var out []span
	for _, s := range spans {
		if last := len(out) - 1; last >= 0 && g.to(out[last].at) == g.to(s.at) {
			out[last].last = s.last
			continue
		}
		out = append(out, s)
	}
	return out
}

// halve appends the comparisons between the spans and returns the first.
func (g *graph) halve(spans []span, list *[]*node) *node {
	if len(spans) == 1 {
		return g.to(spans[0].at)
	}
	middle := len(spans) / 2
	n := &node{code: codeJGE, k: spans[middle].first}
	*list = append(*list, n)
	n.no = g.halve(spans[:middle], list)
	n.yes = g.halve(spans[middle:], list)
	return n
}

// reach is how many instructions a condition can pass over.
const reach = math.MaxUint8

// lay gives nodes their places, and jumps where a successor is too far.
func lay(list []*node) []Instruction {
	for settled := false; !settled; {
		at := 0
		for _, n := range list {
			n.at = at
			at += 1 + n.jumps()
		}
		settled = true
		for _, n := range list {
			limit := reach
			if n.yes == nil {
				limit = 0
			}
			yes, no := n.yes != nil && n.yes.at-n.at-1 > limit, n.no != nil && n.no.at-n.at-1 > limit
			if yes && !n.farYes || no && !n.farNo {
				n.farYes, n.farNo, settled = n.farYes || yes, n.farNo || no, false
			}
		}
	}
	var out []Instruction
	for _, n := range list {
		in, jumps := Instruction{Code: n.code, K: n.k}, []Instruction(nil)
		way := func(to *node, far bool) uint8 {
			if !far {
				return uint8(to.at - n.at - 1)
			}
			here := n.at + 1 + len(jumps)
			jumps = append(jumps, Instruction{Code: codeJA, K: uint32(to.at - here - 1)})
			return uint8(here - n.at - 1)
		}
		switch {
		case n.yes != nil:
			in.Jt, in.Jf = way(n.yes, n.farYes), way(n.no, n.farNo)
		case n.farNo:
			way(n.no, true)
		}
		out = append(append(out, in), jumps...)
	}
	return out
}

// jumps is how many of them stand behind the node.
func (n *node) jumps() int {
	count := 0
	for _, far := range []bool{n.farYes, n.farNo} {
		if far {
			count++
		}
	}
	return count
}
