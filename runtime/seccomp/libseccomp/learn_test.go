//go:build cgo && !noseccomp

package libseccomp

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/capsule-run/capsule/runtime/seccomp"
	"github.com/capsule-run/capsule/runtime/seccomp/bpf"
)

// samples are calls with arguments around what rules compare, of the amd64 table.
func samples(m *model, random *rand.Rand, numbers []uint32, n int) []bpf.Data {
	var all []bpf.Data
	for range n {
		d := bpf.Data{Number: numbers[random.IntN(len(numbers))], Arch: m.arch}
		for i := range d.Args {
			d.Args[i] = random.Uint64() >> random.IntN(64)
			if edges := m.edges(d.Number, uint(i)); random.IntN(3) > 0 && len(edges) > 0 {
				d.Args[i] = edges[random.IntN(len(edges))]
			}
		}
		all = append(all, d)
	}
	return all
}

func ruled(m *model) []uint32 {
	var numbers []uint32
	for number := range m.byNumber {
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	return numbers
}

func allows(program []bpf.Instruction, d *bpf.Data) bool {
	answer, _ := bpf.Run(program, d)
	return answer == bpf.RetAllow
}

// TestLens: what the lens says of a call is what the filter does with it.
func TestLens(t *testing.T) {
	lens, err := seccomp.NewLens()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range seccomp.Names() {
		m := newModel(t, name, "amd64")
		program := compiled(t, name, "amd64", binaryTree)
		for _, d := range samples(m, rand.New(rand.NewPCG(3, 4)), ruled(m), 20000) {
			call := CallName(d.Arch, d.Number)
			if _, refusedBy := lens.See(call, &d.Args); slices.Contains(refusedBy, name) == allows(program, &d) {
				t.Fatalf("%s: %s %#x is refused by %v, and the filter allows it: %v", name, call, d.Args, refusedBy, allows(program, &d))
			}
		}
	}
}

// TestGeneratedIsNeverWider: a profile that is made of some calls allows each of
// them, and nothing of which the lens sees something else.
func TestGeneratedIsNeverWider(t *testing.T) {
	lens, err := seccomp.NewLens()
	if err != nil {
		t.Fatal(err)
	}
	m := newModel(t, "default", "amd64")
	program := compiled(t, "default", "amd64", binaryTree)
	for round := range uint64(6) {
		random := rand.New(rand.NewPCG(round, 1))
		numbers := ruled(m)
		var seen []seccomp.Seen
		var made []bpf.Data
		known := map[string]bool{}
		for _, d := range samples(m, random, numbers, 60) {
			if !allows(program, &d) {
				continue // audit refuses it
			}
			call := CallName(d.Arch, d.Number)
			decisive, _ := lens.See(call, &d.Args)
			made, known[call+" "+decisive] = append(made, d), true
			seen = seccomp.Merge(seen, "one", []seccomp.Seen{{Call: call, Count: 1, Arguments: []string{decisive}}})
		}
		profile, _, err := seccomp.Generate(seen, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		raw, err := CompileCaller(profile, "amd64")
		if err != nil {
			t.Fatal(err)
		}
		learned, err := bpf.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		for i := range made {
			if !allows(learned, &made[i]) {
				t.Errorf("round %d: %s %#x was seen and is refused", round, CallName(made[i].Arch, made[i].Number), made[i].Args)
			}
		}
		for _, d := range append(samples(m, random, numbers, 8000), samples(m, random, []uint32{made[0].Number}, 2000)...) {
			call := CallName(d.Arch, d.Number)
			decisive, _ := lens.See(call, &d.Args)
			if allows(learned, &d) && !known[call+" "+decisive] {
				t.Fatalf("round %d: %s %#x (%s) was not seen and is allowed", round, call, d.Args, decisive)
			}
			if got := seccomp.Judge(profile, call, decisive); (got == seccomp.JudgedAllowed) != known[call+" "+decisive] {
				t.Fatalf("round %d: %s %s is judged %s", round, call, decisive, got)
			}
		}
	}
}
