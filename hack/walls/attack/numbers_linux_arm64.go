package attack

// sysModifyLDT does not exist here; no number is this large.
const sysModifyLDT = 9999

// Legacy are attacks with system calls that this architecture lacks.
var Legacy = map[string][]call{}
