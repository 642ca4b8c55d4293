package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// encoding/json matches member names without regard to case and lets the last of two win. Documents that decide on
// trust are read by these functions instead: names are exact, and an object with two members of one name is refused.

// member is one member of a JSON object, its value not yet looked into.
type member struct {
	name  string
	value json.RawMessage
}

// parseText checks that data is one JSON text in UTF-8 with nothing behind it.
func parseText(data []byte) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: it is not valid UTF-8", ErrMalformed)
	}
	if !json.Valid(data) {
		var v json.RawMessage
		err := json.Unmarshal(data, &v) // to learn where it breaks
		var at *json.SyntaxError
		if errors.As(err, &at) {
			return fmt.Errorf("%w: it is not JSON, byte %d: %w", ErrMalformed, at.Offset, err)
		}
		return fmt.Errorf("%w: it is not JSON: %w", ErrMalformed, err)
	}
	return nil
}

// parseObject splits the object in data, which is valid JSON, into its members in their order.
func parseObject(data json.RawMessage, what string) ([]member, error) {
	if kind(data) != "an object" {
		return nil, fmt.Errorf("%w: %s is %s, not an object", ErrMalformed, what, kind(data))
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
	}
	var members []member
	seen := make(map[string]bool)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
		}
		name, _ := token.(string)
		if seen[name] {
			return nil, fmt.Errorf("%w: %s has %s twice", ErrDuplicateName, what, clip(name))
		}
		seen[name] = true
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
		}
		members = append(members, member{name, value})
	}
	return members, nil
}

// parseArray splits the array in data, which is valid JSON, and stops at more than most elements.
func parseArray(data json.RawMessage, what string, most int, tooMany error) ([]json.RawMessage, error) {
	if kind(data) != "an array" {
		return nil, fmt.Errorf("%w: %s is %s, not an array", ErrMalformed, what, kind(data))
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
	}
	elements := []json.RawMessage{}
	for dec.More() {
		if len(elements) == most {
			return nil, fmt.Errorf("%w: %s has more than %d elements", tooMany, what, most)
		}
		var element json.RawMessage
		if err := dec.Decode(&element); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
		}
		elements = append(elements, element)
	}
	return elements, nil
}

// parseString reads a JSON string.
func parseString(data json.RawMessage, what string) (string, error) {
	if kind(data) != "a string" {
		return "", fmt.Errorf("%w: %s is %s, not a string", ErrMalformed, what, kind(data))
	}
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return "", fmt.Errorf("%w: %s: %w", ErrMalformed, what, err)
	}
	return s, nil
}

// wholeNumber reads a JSON number without sign, fraction or exponent, as its digits.
func wholeNumber(data json.RawMessage) (digits string, ok bool) {
	digits = string(bytes.TrimSpace(data))
	return digits, digits != "" && strings.Trim(digits, "0123456789") == ""
}

// kind names the kind of a JSON value, with its article.
func kind(data json.RawMessage) string {
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

// writeJSON encodes v compactly. A value of this package's own types cannot fail to encode.
func writeJSON(w io.Writer, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
	return err
}
