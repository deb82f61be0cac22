package spec

import "strings"

// maxSuggestBytes bounds the names for which a near one is looked for: the
// work is the product of the lengths.
const maxSuggestBytes = 64

// nearest gives the candidate that a misspelt name most likely means, "" when
// none is near: one that begins with it, other case or separators, or an edit
// distance of at most a third of the length.
func nearest(name string, candidates []string) string {
	if len(name) == 0 || len(name) > maxSuggestBytes {
		return ""
	}
	plain := simplified(name)
	best, least := "", len(plain)/3+1
	for _, c := range candidates {
		// A missing unit or an abbreviation: timeout for timeout_ms.
		if len(plain) >= 3 && strings.HasPrefix(simplified(c), plain) {
			return c
		}
		if d := distance(plain, simplified(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// simplified drops case, separators and the prefix that OCI gives to rlimits.
func simplified(name string) string {
	name = strings.ToLower(name)
	name = strings.NewReplacer("_", "", "-", "", " ", "").Replace(name)
	return strings.TrimPrefix(name, "rlimit")
}

// distance counts the insertions, deletions and substitutions of bytes that
// turn a into b (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost = 1 + min(diagonal, row[j], row[j-1])
			}
			diagonal, row[j] = row[j], cost
		}
	}
	return row[len(b)]
}

// suggestNear is the hint for a name that is not among candidates, which the message
// lists. Empty: none is near.
func suggestNear(name string, candidates []string) string {
	if near := nearest(name, candidates); near != "" {
		return "Did you mean `" + near + "`?"
	}
	return ""
}

// suggestName is suggestNear for a message that does not list them.
func suggestName(name string, candidates []string) string {
	if near := suggestNear(name, candidates); near != "" {
		return near
	}
	if len(candidates) == 0 {
		return ""
	}
	return "Known here: " + strings.Join(candidates, ", ") + "."
}

// suggestKey is the hint for a key that object o does not have. A key that
// another object of the request has is pointed to there.
func suggestKey(name string, o *object) string {
	if near := nearest(name, o.names()); near != "" {
		return "Did you mean `" + near + "`?"
	}
	for _, other := range []*object{&requestObject, &resourcesObject, &isolationObject, &ioObject} {
		if other != o && other.index(name) >= 0 {
			if other == &requestObject {
				return "`" + name + "` belongs at the top of the document."
			}
			return "`" + name + "` belongs in `" + other.title + "`."
		}
	}
	return suggestName(name, o.names())
}
