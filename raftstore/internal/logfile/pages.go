package logfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// The layout of a bbolt file. Its integers are in the byte order of the machine.
const (
	pageHeaderBytes    = 16 // id, flags, count, overflow
	elementBytes       = 16
	bucketHeaderBytes  = 16 // root page, sequence
	metaBytes          = 64
	metaChecksumOffset = 56
	metaMagic          = 0xED0CDAED
	metaVersion        = 2
	noFreelist         = ^uint64(0)

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10
	bucketFlag   = 0x01

	minPageBytes = 512
	maxPageBytes = 64 << 10
	// maxDepth is far above the depth of a tree with the most pages that a file can have.
	maxDepth = 32
)

// pages reads a bbolt file and checks everything in it that bbolt relies on, before bbolt opens it: bbolt maps the file
// and follows the numbers in it, so that it ends the process, or reads something else, where one of them is wrong.
// (bbolt's own check does the same, in goroutines of its own whose panics and faults nothing can catch.)
type pages struct {
	file io.ReaderAt
	size uint64
	// visit is called for every record, bucket by bucket, in the order of the keys. key and value share memory.
	visit func(bucket string, key, value []byte) error

	pageBytes uint64
	end       uint64 // the page after the last one in use
	seen      map[uint64]bool
}

// check returns the number of the file's last transaction and the names of its buckets.
func (p *pages) check() (txid uint64, buckets []string, err error) {
	metas, err := p.metas()
	if err != nil {
		return 0, nil, err
	}
	latest := metas[0]
	if metas[1].txid > latest.txid {
		latest = metas[1]
	}
	p.end, p.seen = latest.end, map[uint64]bool{}
	if p.end > p.size/p.pageBytes {
		return 0, nil, fmt.Errorf("it is cut off: it has %d bytes, and %d pages of %d bytes are in use",
			p.size, p.end, p.pageBytes)
	}
	// bbolt creates a file with an empty list of free pages, which the first transaction drops.
	if latest.freelist != noFreelist && latest.txid > 1 {
		return 0, nil, errors.New("it has a stored list of free pages, which this program never writes")
	}
	err = p.tree(latest.root, bounds{}, 0, func(flags uint32, key, value []byte) error {
		if flags != bucketFlag {
			return fmt.Errorf("it has something other than a bucket at the top, %q", key)
		}
		buckets = append(buckets, string(key))
		return p.bucket(string(key), value)
	})
	return latest.txid, buckets, err
}

type meta struct{ root, freelist, end, txid uint64 }

// metas returns both of the file's heads. bbolt writes them in turn, and uses the older one where the newer is damaged,
// which would lose the last transaction: here both must be right. A head lies within one sector, which disks write in
// full or not at all.
func (p *pages) metas() (metas [2]meta, err error) {
	head := make([]byte, pageHeaderBytes+metaBytes)
	for i := range metas {
		if uint64(len(head)) > p.size || uint64(i)*p.pageBytes > p.size-uint64(len(head)) {
			return metas, fmt.Errorf("it is cut off: it has %d bytes", p.size)
		}
		if _, err := p.file.ReadAt(head, int64(uint64(i)*p.pageBytes)); err != nil {
			return metas, err
		}
		body := head[pageHeaderBytes:]
		u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(body[at:]) }
		u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(body[at:]) }
		sum := fnv.New64a()
		sum.Write(body[:metaChecksumOffset]) // a hash never fails
		pageBytes := uint64(u32(8))
		switch {
		case binary.NativeEndian.Uint64(head) != uint64(i), binary.NativeEndian.Uint16(head[8:]) != metaPage,
			u32(0) != metaMagic, u32(4) != metaVersion, u64(metaChecksumOffset) != sum.Sum64(),
			pageBytes < minPageBytes, pageBytes > maxPageBytes, pageBytes&(pageBytes-1) != 0,
			i > 0 && pageBytes != p.pageBytes:
			return metas, fmt.Errorf("its head %d is not valid", i)
		}
		p.pageBytes = pageBytes
		metas[i] = meta{root: u64(16), freelist: u64(32), end: u64(40), txid: u64(48)}
	}
	older, newer := min(metas[0].txid, metas[1].txid), max(metas[0].txid, metas[1].txid)
	if newer != older+1 || metas[newer%2].txid != newer {
		return metas, fmt.Errorf("its heads are of the transactions %d and %d, which do not follow each other",
			metas[0].txid, metas[1].txid)
	}
	return metas, nil
}

// bucket visits the records of a bucket, whose root is a page, or follows its header if the bucket is small.
func (p *pages) bucket(name string, header []byte) error {
	if len(header) < bucketHeaderBytes {
		return fmt.Errorf("the bucket %q has no root", name)
	}
	root := binary.NativeEndian.Uint64(header)
	if sequence := binary.NativeEndian.Uint64(header[8:]); sequence != 0 {
		return fmt.Errorf("the bucket %q has the sequence %d", name, sequence)
	}
	record := func(flags uint32, key, value []byte) error {
		if flags != 0 {
			return fmt.Errorf("the bucket %q has a record %x with the flags %x", name, key, flags)
		}
		return p.visit(name, key, value)
	}
	if root != 0 {
		return p.tree(root, bounds{}, 0, record)
	}
	inline := header[bucketHeaderBytes:]
	if len(inline) < pageHeaderBytes || binary.NativeEndian.Uint64(inline) != 0 ||
		binary.NativeEndian.Uint16(inline[8:]) != leafPage || binary.NativeEndian.Uint32(inline[12:]) != 0 {
		return fmt.Errorf("the bucket %q has no page", name)
	}
	return leaf(inline, bounds{}, record)
}

// bounds are the keys that a page may have: from low on, and below high unless that is nil.
type bounds struct{ low, high []byte }

// tree visits the leaves below a page.
func (p *pages) tree(id uint64, in bounds, depth int, visit func(flags uint32, key, value []byte) error) error {
	page, err := p.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(page[8:]); {
	case flags == leafPage:
		err = leaf(page, in, visit)
	case flags == branchPage && depth < maxDepth:
		err = p.branch(page, in, depth, visit)
	default:
		err = fmt.Errorf("it is of no kind that belongs there (%x)", flags)
	}
	if err != nil && depth == 0 {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return err
}

// page reads a page with those that continue it.
func (p *pages) page(id uint64) ([]byte, error) {
	if id < 2 || id >= p.end {
		return nil, fmt.Errorf("page %d is referred to, and 2 to %d are in use", id, p.end-1)
	}
	header := make([]byte, pageHeaderBytes)
	if _, err := p.file.ReadAt(header, int64(id*p.pageBytes)); err != nil {
		return nil, err
	}
	more := uint64(binary.NativeEndian.Uint32(header[12:]))
	if binary.NativeEndian.Uint64(header) != id || more >= p.end-id {
		return nil, fmt.Errorf("page %d has another number or too many pages that continue it", id)
	}
	for n := id; n <= id+more; n++ {
		if p.seen[n] {
			return nil, fmt.Errorf("page %d is referred to twice", n)
		}
		p.seen[n] = true
	}
	page := make([]byte, (more+1)*p.pageBytes)
	_, err := p.file.ReadAt(page, int64(id*p.pageBytes))
	return page, err
}

func (p *pages) branch(page []byte, in bounds, depth int, visit func(uint32, []byte, []byte) error) error {
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if count == 0 {
		return errors.New("it has no pages below it")
	}
	keys, children := make([][]byte, count), make([]uint64, count)
	for i := range count {
		at := pageHeaderBytes + i*elementBytes
		if at+elementBytes > len(page) {
			return errTooMany
		}
		e := page[at:]
		key, err := part(page, count, at, binary.NativeEndian.Uint32(e), uint64(binary.NativeEndian.Uint32(e[4:])))
		if err != nil {
			return err
		}
		keys[i], children[i] = key, binary.NativeEndian.Uint64(e[8:])
	}
	if err := ascending(keys, in); err != nil {
		return err
	}
	for i, child := range children {
		below := bounds{keys[i], in.high}
		if i+1 < count {
			below.high = keys[i+1]
		}
		if err := p.tree(child, below, depth+1, visit); err != nil {
			return fmt.Errorf("below it page %d: %w", child, err)
		}
	}
	return nil
}

func leaf(page []byte, in bounds, visit func(flags uint32, key, value []byte) error) error {
	count := int(binary.NativeEndian.Uint16(page[10:]))
	keys := make([][]byte, count)
	for i := range count {
		at := pageHeaderBytes + i*elementBytes
		if at+elementBytes > len(page) {
			return errTooMany
		}
		e := page[at:]
		flags, position := binary.NativeEndian.Uint32(e), binary.NativeEndian.Uint32(e[4:])
		keyBytes, valueBytes := uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
		both, err := part(page, count, at, position, keyBytes+valueBytes)
		if err != nil {
			return err
		}
		keys[i] = both[:keyBytes]
		if err := visit(flags, keys[i], both[keyBytes:]); err != nil {
			return err
		}
	}
	return ascending(keys, in)
}

var errTooMany = errors.New("it has more elements than room")

// part returns the bytes of an element, whose position counts from the element itself.
func part(page []byte, count, element int, position uint32, size uint64) ([]byte, error) {
	from := uint64(element) + uint64(position)
	if from < uint64(pageHeaderBytes+count*elementBytes) || size > uint64(len(page)) || from > uint64(len(page))-size {
		return nil, errors.New("it has an element outside of it")
	}
	return page[from : from+size], nil
}

func ascending(keys [][]byte, in bounds) error {
	for i, key := range keys {
		if i > 0 && bytes.Compare(keys[i-1], key) >= 0 || bytes.Compare(key, in.low) < 0 ||
			in.high != nil && bytes.Compare(key, in.high) >= 0 {
			return fmt.Errorf("its key %x is out of order", key)
		}
	}
	return nil
}
