// Package spec is the contract that callers see: the ExecutionRequest and the
// ExecutionResponse, their strict decoding, defaults, profiles and validation.
// It knows nothing of kernels, does no I/O and imports nothing of capsule but
// its fault table.
package spec
