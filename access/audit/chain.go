package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// Each line names the SHA-256 of the line before it, so that a line that was changed, removed or inserted breaks the
// chain. The last link is in a file of its own, so that lines that are missing at the end are found too. Rotation does
// not break the chain: the first line of the next file names the last one of the file before.
//
// The chain finds what a disk or an accident did. Somebody who can write both files can write a chain of their own; who
// must withstand that sends the lines to another machine.

// EndSuffix is appended to the path of an audit log for the file with the last link.
const EndSuffix = ".end"

// link is the SHA-256 of a line without its newline.
type link [sha256.Size]byte

func linkOf(line []byte) link { return sha256.Sum256(bytes.TrimSuffix(line, []byte{'\n'})) }

// appendChained appends a line with the link to the one before.
func appendChained(to, line []byte, before link) []byte {
	to = append(to, bytes.TrimSuffix(line, []byte("}\n"))...)
	to = append(to, `,"previous":"`...)
	to = hex.AppendEncode(to, before[:])
	return append(to, "\"}\n"...)
}

// previous returns the link that a line has to the one before; ok is false if it has none.
func previous(line []byte) (l link, ok bool) {
	var j struct {
		Previous string `json:"previous"`
	}
	if json.Unmarshal(line, &j) != nil {
		return l, false
	}
	raw, err := hex.DecodeString(j.Previous)
	if err != nil || len(raw) != len(l) {
		return l, false
	}
	return link(raw), true
}

// end is the content of the file with the last link: the last line, and the file that has it. Without that, a log that
// was cut to nothing could not be distinguished from one that was just rotated.
type end struct {
	last link
	in   fileID
}

const (
	endSize = sha256.Size + 16 + 8
	// earlierEndSize is that of earlier builds, which did not name the file.
	earlierEndSize = sha256.Size + 8
)

func encodeEnd(e end) []byte {
	raw := binary.BigEndian.AppendUint64(e.last[:], e.in.inode)
	raw = binary.BigEndian.AppendUint64(raw, e.in.born)
	sum := sha256.Sum256(raw)
	return append(raw, sum[:8]...)
}

var errEnd = errors.New("its checksum does not match")

// readEndFile returns the last link and its file, and whether there is one.
func readEndFile(path string) (e end, found bool, err error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return e, false, nil
	}
	if err != nil {
		return e, false, err
	}
	content := raw[:max(0, len(raw)-8)]
	if sum := sha256.Sum256(content); len(raw) != endSize && len(raw) != earlierEndSize ||
		!bytes.Equal(raw[len(content):], sum[:8]) {
		return e, false, errEnd
	}
	e.last = link(content[:sha256.Size])
	if len(raw) == endSize {
		e.in.inode = binary.BigEndian.Uint64(content[sha256.Size:])
		e.in.born = binary.BigEndian.Uint64(content[sha256.Size+8:])
	}
	return e, true, nil
}

// Verified describes audit logs that are whole.
type Verified struct {
	// Lines counts the lines in the chain, and Unchained those before it, of a version that wrote none.
	Lines, Unchained int
	// Fragments counts lines that a full disk cut off. Their events were refused.
	Fragments int
}

// chain is how far a verification has come.
type chain struct {
	Verified
	begun        bool
	last, before link // of the last line, and of the line before it
	end          link // the last link as it was written
	ended        bool // a line has it
}

// Verify checks the audit logs of a member, the oldest first, and that they have the line that was written last. The
// first line may continue a file that is not there any more. A member may be writing to the last file.
func Verify(paths ...string) (Verified, error) {
	if len(paths) == 0 {
		return Verified{}, nil
	}
	newest := paths[len(paths)-1]
	written, found, err := readEndFile(newest + EndSuffix)
	if err != nil {
		return Verified{}, fmt.Errorf("%s is damaged: %w", newest+EndSuffix, err)
	}
	c := &chain{end: written.last}
	for _, path := range paths {
		if err := c.file(path); err != nil {
			return c.Verified, err
		}
	}
	switch {
	case !found && c.begun:
		return c.Verified, fmt.Errorf("%s is missing, so that lines that are missing at the end of %s cannot be found",
			newest+EndSuffix, newest)
	case found && !c.ended:
		return c.Verified, fmt.Errorf("%s does not have the line that was written last: lines at its end are missing",
			newest)
	}
	return c.Verified, nil
}

// file verifies one file, after a line in the file before.
func (c *chain) file(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fragment := 0 // the line that is not one that was written, unless the next one shows that it was refused
	lines := bufio.NewReaderSize(f, 64<<10)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if len(line) == 0 {
			break
		}
		if !c.line(line) {
			return fmt.Errorf("%s: line %d does not follow the line before it: one of them was changed, or lines "+
				"between them are missing", path, number)
		}
		if _, ok := previous(line); ok || !c.begun {
			fragment = 0
		} else if fragment == 0 {
			fragment = number
		}
	}
	if fragment > 0 {
		return fmt.Errorf("%s: line %d is not one that was written: it was changed or cut off", path, fragment)
	}
	return nil
}

// line adds a line to the chain, and reports whether it belongs there. A full disk can cut off a line, also just before
// its newline: then the next line follows the one before. The first line of a chain follows none, unless it is the
// first one of its file: before it are only lines without a chain, and such that were cut off.
func (c *chain) line(line []byte) bool {
	to, ok := previous(line)
	switch {
	case !ok && c.begun:
		c.Fragments++
		return true
	case !ok:
		c.Unchained++
		return true
	case !c.begun && (to == link{} || c.Unchained == 0):
	case to == c.last:
		c.before = c.last
	case to == c.before && c.Lines > 1:
		c.Lines--
		c.Fragments++
	default:
		return false
	}
	c.Lines++
	c.begun, c.last = true, linkOf(line)
	c.ended = c.ended || c.last == c.end
	return true
}

// openEnd opens the file with the last link, and finds the link that the next line of a log needs. lines are the last
// ones of the log, and id is its file. alarm is what is wrong with the log, which does not keep the member from writing
// to it.
func openEnd(path string, id fileID, lines [][]byte) (file *os.File, last link, alarm, err error) {
	e, found, alarm := readEndFile(path + EndSuffix)
	last = e.last
	if len(lines) == 0 && last != (link{}) && id == e.in && id != (fileID{}) {
		alarm = errors.New("it had lines and has none: they are missing")
	}
	if n := len(lines); n > 0 {
		found := alarm != nil || last == link{}
		var newest link
		for _, line := range lines {
			if _, ok := previous(line); ok {
				newest = linkOf(line)
				found = found || newest == last
			}
		}
		if !found {
			alarm = errors.New("it does not have the line that was written last")
		}
		last = newest
	}
	file, err = os.OpenFile(path+EndSuffix, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil && !found && alarm == nil {
		_, _ = file.WriteAt(encodeEnd(end{last, id}), 0) // an empty one is a damaged one; the next line repeats it
	}
	return file, last, alarm, err
}
