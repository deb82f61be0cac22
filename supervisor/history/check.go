package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// The layout of bbolt's file, version 2: two meta pages, then a tree of branch
// and leaf pages for each bucket, and a list of free pages. Numbers are in the
// byte order of the machine that wrote it.
const (
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	noFreelist  = ^uint64(0)

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	pageHeader = 16
	metaBytes  = 64
	element    = 16
	// maxDepth is far above what 2^48 pages need.
	maxDepth = 40
)

// checker walks all pages of a file. bbolt itself follows what it finds: a
// cycle keeps it busy for ever and a wrong length panics, also in goroutines
// where nobody can recover. Hence this walk before bbolt sees the file.
type checker struct {
	file     []byte
	pageSize uint64
	pages    uint64
	seen     []uint64 // one bit a page
}

// check returns nil when every page that bbolt can reach is sound. Values are
// not looked at: they have checksums of their own, and pages that hold nothing
// else are not touched. cut tells whether the file ends within a page, which
// bbolt leaves no file with: what it held there, if anything, is gone.
func check(file []byte) (cut bool, err error) {
	c := &checker{file: file}
	root, freelist, err := c.meta()
	if err != nil {
		return false, err
	}
	size := uint64(len(file))
	if c.pages < 4 || c.pages > size/c.pageSize {
		return false, fmt.Errorf("%d pages of %d bytes do not fit into %d bytes", c.pages, c.pageSize, size)
	}
	c.seen = make([]uint64, c.pages/64+1)
	c.seen[0] = 3
	if err := c.tree(root, 0, nil, nil); err != nil {
		return false, err
	}
	return size%c.pageSize != 0, c.freelist(freelist)
}

// meta finds the newest meta page that is whole, as bbolt does.
func (c *checker) meta() (root, freelist uint64, err error) {
	var newest uint64
	found := false
	for _, pageSize := range []uint64{0, 4096, 8192, 16384, 32768, 65536} {
		// The first meta page is at 0; the second one where the page size says.
		if uint64(len(c.file)) < pageSize+pageHeader+metaBytes {
			continue
		}
		m := c.file[pageSize+pageHeader:][:metaBytes]
		n := binary.NativeEndian
		h := fnv.New64a()
		_, _ = h.Write(m[:56]) // a hash does not fail
		ps := uint64(n.Uint32(m[8:]))
		if n.Uint32(m) != boltMagic || n.Uint32(m[4:]) != boltVersion || n.Uint64(m[56:]) != h.Sum64() ||
			pageSize != 0 && pageSize != ps || ps < 1024 || ps > 65536 || ps&(ps-1) != 0 {
			continue
		}
		if tx := n.Uint64(m[48:]); !found || tx > newest {
			found, newest, c.pageSize = true, tx, ps
			root, freelist, c.pages = n.Uint64(m[16:]), n.Uint64(m[32:]), n.Uint64(m[40:])
		}
	}
	if !found {
		return 0, 0, fmt.Errorf("neither meta page is whole in %d bytes", len(c.file))
	}
	return root, freelist, nil
}

// page checks the header of page id, marks the page and returns it with those
// that it overflows into.
func (c *checker) page(id uint64) ([]byte, error) {
	if id < 2 || id >= c.pages {
		return nil, fmt.Errorf("there is no page %d", id)
	}
	header := c.file[id*c.pageSize:][:pageHeader]
	overflow := uint64(binary.NativeEndian.Uint32(header[12:]))
	if binary.NativeEndian.Uint64(header) != id || overflow >= c.pages-id {
		return nil, fmt.Errorf("page %d has a wrong header", id)
	}
	for p := id; p <= id+overflow; p++ {
		if c.seen[p/64]&(1<<(p%64)) != 0 {
			return nil, fmt.Errorf("page %d is used twice", p)
		}
		c.seen[p/64] |= 1 << (p % 64)
	}
	return c.file[id*c.pageSize:][:(overflow+1)*c.pageSize], nil
}

// tree checks the page and all below it. Its first key is low, as the element
// of its parent says: bbolt finds the element by it, and where it does not it
// leaves one behind that names a page it frees. All keys are below high. Nil:
// no bound.
func (c *checker) tree(id uint64, depth int, low, high []byte) error {
	if depth > maxDepth {
		return errors.New("the tree is too deep")
	}
	data, err := c.page(id)
	if err != nil {
		return err
	}
	if err := c.node(data, depth, low, high); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

// node checks one page.
func (c *checker) node(data []byte, depth int, low, high []byte) error {
	flags, count := binary.NativeEndian.Uint16(data[8:]), int(binary.NativeEndian.Uint16(data[10:]))
	if flags != flagBranch && flags != flagLeaf {
		return fmt.Errorf("it is of no known kind (%#x)", flags)
	}
	if count == 0 && (flags == flagBranch || low != nil) || uint64(pageHeader+count*element) > uint64(len(data)) {
		return fmt.Errorf("it cannot have %d elements", count)
	}
	var before []byte
	var keys [][]byte
	var children []uint64
	for i := range count {
		at := uint64(pageHeader + i*element)
		k, err := c.element(flags, data, at, depth)
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
		if i > 0 && bytes.Compare(before, k) >= 0 || i == 0 && low != nil && !bytes.Equal(k, low) || high != nil && bytes.Compare(k, high) >= 0 {
			return fmt.Errorf("element %d is out of order", i)
		}
		if before = k; flags == flagBranch {
			keys, children = append(keys, k), append(children, binary.NativeEndian.Uint64(data[at+8:]))
		}
	}
	for i, child := range children {
		upper := high
		if i+1 < count {
			upper = keys[i+1]
		}
		if err := c.tree(child, depth+1, keys[i], upper); err != nil {
			return err
		}
	}
	return nil
}

// element checks one element and the bucket that it may be, and returns its key.
func (c *checker) element(flags uint16, data []byte, at uint64, depth int) ([]byte, error) {
	e := data[at : at+element]
	n := binary.NativeEndian
	var kind, pos, ksize, vsize uint64
	if flags == flagBranch {
		pos, ksize = uint64(n.Uint32(e)), uint64(n.Uint32(e[4:]))
	} else {
		kind, pos, ksize, vsize = uint64(n.Uint32(e)), uint64(n.Uint32(e[4:])), uint64(n.Uint32(e[8:])), uint64(n.Uint32(e[12:]))
	}
	if kind > 1 || ksize > 32768 || at+pos+ksize+vsize > uint64(len(data)) || pos < element {
		return nil, errors.New("it is longer than its page")
	}
	k := data[at+pos:][:ksize]
	if kind == 0 {
		return k, nil
	}
	if vsize < 16 || vsize > c.pageSize {
		return nil, errors.New("it is no bucket")
	}
	v := data[at+pos+ksize:][:vsize]
	if root := n.Uint64(v); root != 0 {
		return k, c.tree(root, depth+1, nil, nil)
	}
	// A small bucket is a page inside its value.
	inline := v[16:]
	if len(inline) < pageHeader || n.Uint16(inline[8:]) != flagLeaf {
		return nil, errors.New("its inline bucket is no leaf")
	}
	if depth > maxDepth {
		return nil, errors.New("the tree is too deep")
	}
	return k, c.node(inline, depth+1, nil, nil)
}

// freelist checks that no page is free and in use.
func (c *checker) freelist(id uint64) error {
	if id == noFreelist {
		return nil
	}
	data, err := c.page(id)
	if err != nil {
		return err
	}
	n := binary.NativeEndian
	count, at := uint64(n.Uint16(data[10:])), uint64(pageHeader)
	if count == 0xFFFF && len(data) >= 24 {
		count, at = n.Uint64(data[16:]), 24
	}
	if n.Uint16(data[8:]) != flagFreelist || count > uint64(len(data))/8 || at+count*8 > uint64(len(data)) {
		return errors.New("the list of free pages is damaged")
	}
	before := uint64(1)
	for ; count > 0; count, at = count-1, at+8 {
		p := n.Uint64(data[at:])
		if p <= before || p >= c.pages || c.seen[p/64]&(1<<(p%64)) != 0 {
			return fmt.Errorf("page %d is wrongly listed as free", p)
		}
		before = p
	}
	return nil
}
