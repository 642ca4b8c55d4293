package strictjson

import (
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// MaxMembers bounds the members of one object, including those without meaning: their names are kept while the object
// is read, to find duplicates.
const MaxMembers = 1024

// Member is one member of a JSON object with its raw value.
type Member struct {
	Name  string
	Value json.RawMessage
}

// Splitter splits objects, one at a time. It reuses its memory. The zero value is ready.
type Splitter struct {
	seen map[string]struct{}
	name []byte
}

// Object calls visit with each member of the object in data, in order. It stops at the first error, at a second member
// of one name, and at more than most. Data is a text, or a value of a text, that [ParseText] has accepted, and each
// value is a slice of it. visit must not use the splitter.
func (s *Splitter) Object(
	data json.RawMessage,
	what string,
	most int,
	visit func(name string, value json.RawMessage) error,
) error {
	if Kind(data) != "an object" {
		return fmt.Errorf("%w: %s is %s, not an object", ErrMalformed, what, Kind(data))
	}
	if s.seen == nil {
		s.seen = make(map[string]struct{})
	}
	clear(s.seen)
	for i := skipSpace(data, 0) + 1; ; {
		i = skipSpace(data, i)
		if i >= len(data) || data[i] == '}' {
			return nil
		}
		end := skipValue(data, i)
		s.name = unescape(s.name[:0], data[i:end])
		if _, ok := s.seen[string(s.name)]; ok {
			return fmt.Errorf("%w: %s has %s twice", ErrDuplicateName, what, refusal.Clip(string(s.name)))
		}
		if len(s.seen) == most {
			return fmt.Errorf("%w: %s has more than %d", ErrTooManyMembers, what, most)
		}
		name := string(s.name)
		s.seen[name] = struct{}{}
		i = skipSpace(data, skipSpace(data, end)+1) // after the colon
		end = skipValue(data, i)
		if err := visit(name, data[i:end]); err != nil {
			return err
		}
		if i = skipSpace(data, end); i < len(data) && data[i] == ',' {
			i++
		}
	}
}

// ParseObject splits the object in data into its members in their order.
func ParseObject(data json.RawMessage, what string) (members []Member, err error) {
	var s Splitter
	err = s.Object(data, what, MaxMembers, func(name string, value json.RawMessage) error {
		members = append(members, Member{name, value})
		return nil
	})
	return members, err
}

// EachElement calls visit with each element of the array in data, as [Splitter.Object] does with members.
func EachElement(
	data json.RawMessage,
	what string,
	most int,
	tooMany error,
	visit func(i int, element json.RawMessage) error,
) error {
	if Kind(data) != "an array" {
		return fmt.Errorf("%w: %s is %s, not an array", ErrMalformed, what, Kind(data))
	}
	i := skipSpace(data, 0) + 1
	for n := 0; ; n++ {
		i = skipSpace(data, i)
		if i >= len(data) || data[i] == ']' {
			return nil
		}
		if n == most {
			return fmt.Errorf("%w: %s has more than %d elements", tooMany, what, most)
		}
		end := skipValue(data, i)
		if err := visit(n, data[i:end]); err != nil {
			return err
		}
		if i = skipSpace(data, end); i < len(data) && data[i] == ',' {
			i++
		}
	}
}

// CountElements counts the elements of the array in data, and stops at more than most.
func CountElements(data json.RawMessage, what string, most int, tooMany error) (n int, err error) {
	err = EachElement(data, what, most, tooMany, func(int, json.RawMessage) error {
		n++
		return nil
	})
	return n, err
}

func skipSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\t' || data[i] == '\n' || data[i] == '\r') {
		i++
	}
	return i
}

// skipValue returns where the value ends that begins at i, in valid JSON.
func skipValue(data []byte, i int) int {
	for depth := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			if depth == 0 {
				return min(i+1, len(data))
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			if depth--; depth == 0 {
				return i + 1
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
		}
	}
	return len(data)
}

// unescape appends the text of a valid JSON string, as encoding/json reads it: half of a surrogate pair is U+FFFD.
func unescape(to, quoted []byte) []byte {
	s := quoted[1 : len(quoted)-1]
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			to = append(to, s[i])
			continue
		}
		i++
		switch s[i] {
		case 'b':
			to = append(to, '\b')
		case 'f':
			to = append(to, '\f')
		case 'n':
			to = append(to, '\n')
		case 'r':
			to = append(to, '\r')
		case 't':
			to = append(to, '\t')
		case 'u':
			r := hex4(s[i+1:])
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if len(s) > i+6 && s[i+1] == '\\' && s[i+2] == 'u' {
					pair = utf16.DecodeRune(r, hex4(s[i+3:]))
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			to = utf8.AppendRune(to, r)
		default: // a quotation mark, a solidus or its reverse
			to = append(to, s[i])
		}
	}
	return to
}

func hex4(s []byte) rune {
	n, _ := strconv.ParseUint(string(s[:4]), 16, 32)
	return rune(n)
}
