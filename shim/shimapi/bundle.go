package shimapi

// Actions of the call Bundle.
const (
	BundleLoad     = "load"
	BundleValidate = "validate"
	BundleDiff     = "diff"
	BundleWrite    = "write"
	BundleProbe    = "probe"
)

// BundleReport is what validate found.
type BundleReport struct {
	Bundle string `json:"bundle"`
	// Valid: it runs here. Otherwise Problems says why not, all at once.
	Valid    bool            `json:"valid"`
	Problems []BundleProblem `json:"problems"`
	// Warnings are sentences: what capsule adds, and what is weaker here than asked.
	Warnings []string `json:"warnings"`
	// Walls are those that the plan builds, and Steps how many it has.
	Walls []string `json:"walls"`
	Steps int      `json:"steps"`
}

// BundleProblem is a reason why a bundle does not run here.
type BundleProblem struct {
	Code string `json:"code"`
	// Pointer is the JSON pointer (RFC 6901) of the field in config.json; may be empty.
	Pointer string `json:"pointer"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}
