// Package strictjson reads JSON documents that decide on trust. encoding/json ignores the case of member names and lets
// the last of two members win. Here names are exact, and an object with two members of one name is refused. Values are
// slices of the text, so that a value without meaning costs no memory.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/ententehq/entente/bundle/internal/refusal"
)

// Refusals of texts.
var (
	ErrMalformed      error = refusal.New("malformed", "the document is malformed")
	ErrDuplicateName  error = refusal.New("duplicate_name", "a JSON object has two members of the same name")
	ErrTooManyMembers error = refusal.New("too_many_members", "a JSON object has more members than allowed")
)

// ParseText checks that data is one JSON text in UTF-8 with nothing behind it.
func ParseText(data []byte) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: it is not valid UTF-8", ErrMalformed)
	}
	if !json.Valid(data) {
		var v json.RawMessage
		err := json.Unmarshal(data, &v) // to find the position of the error
		var at *json.SyntaxError
		if errors.As(err, &at) {
			return fmt.Errorf("%w: it is not JSON, byte %d: %w", ErrMalformed, at.Offset, err)
		}
		return fmt.Errorf("%w: it is not JSON: %w", ErrMalformed, err)
	}
	return nil
}

// ParseString reads a JSON string.
func ParseString(data json.RawMessage, what string) (string, error) {
	if Kind(data) != "a string" {
		return "", fmt.Errorf("%w: %s is %s, not a string", ErrMalformed, what, Kind(data))
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
	}
	return s, nil
}

// WholeNumber reads a JSON number without sign, fraction or exponent, as its digits.
func WholeNumber(data json.RawMessage) (digits string, ok bool) {
	digits = string(bytes.TrimSpace(data))
	return digits, digits != "" && strings.Trim(digits, "0123456789") == ""
}

// Kind names the kind of a JSON value, with its article.
func Kind(data json.RawMessage) string {
	data = bytes.TrimSpace(data)
	if len(data) == 0 {
		return "nothing"
	}
	switch data[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a string"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// WriteJSON appends v compactly. Values of this module's own types cannot fail to encode.
func WriteJSON(buf *bytes.Buffer, v any) error {
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	buf.Truncate(buf.Len() - len("\n"))
	return nil
}
