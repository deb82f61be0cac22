package walls

// sysModifyLDT does not exist here; no number is this large.
const sysModifyLDT = 9999

// legacy are attacks with system calls that this architecture lacks.
var legacy = map[string][]call{}
