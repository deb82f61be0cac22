// Package spec is the contract that callers see: the ExecutionRequest and the
// ExecutionResponse, their strict decoding, defaults, profiles and validation.
// It knows nothing of kernels, does no I/O and imports nothing of capsule but
// its fault table.
//
// The rows in table_request.go and table_response.go hold names, types,
// defaults, ranges and meanings once. Decoding, validation, encoding, the JSON
// Schema and docs/request.md all follow from them; a new field is a new row.
//
//	JSON -> DecodeRequest -> Request -> Encode -> DecodeResolved in the shim
//	flags -> Default, ApplyProfile, fields, Complete, Validate -> the same
package spec

//go:generate go run ../hack/gendocs -o ../docs
