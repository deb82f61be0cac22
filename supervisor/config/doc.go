// Package config reads capsule's configuration: files in TOML or JSON, profiles,
// and where each value came from. It is strict: what it does not know is an error
// with a suggestion, and a file that is wrong configures nothing.
//
// Nothing here runs, and no table is built, when there is no file to read.
package config
