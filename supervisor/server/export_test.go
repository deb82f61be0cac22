package server

// Owned is how many executions have, or lack, an owner.
func (s *Server) Owned() int {
	s.owners.mu.Lock()
	defer s.owners.mu.Unlock()
	return len(s.owners.owned)
}

// Orphans is how many executions wait for somebody to take them over.
func (s *Server) Orphans() int {
	s.owners.mu.Lock()
	defer s.owners.mu.Unlock()
	n := 0
	for _, e := range s.owners.owned {
		if e.conn == nil {
			n++
		}
	}
	return n
}

// Unanswered tells whether Settle has something to wait for.
func (s *Server) Unanswered() bool { return s.unanswered() }

// Calls is how many calls are in their handlers.
func (s *Server) Calls() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for c := range s.open {
		c.mu.Lock()
		n += c.calls
		c.mu.Unlock()
	}
	return n
}
