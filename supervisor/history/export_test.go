package history

// Remember sets how many removed ids s remembers.
func Remember(s *Store, n uint64) { s.remember = n }

// DecodeHead decodes a record for the fuzz test.
func DecodeHead(k, value []byte) error {
	_, err := decodeHead(k, value)
	return err
}
