package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/internal/enumname"
)

// encode returns a message as compact JSON for programs, as docs/operating/output.md describes it: with the names and
// the order of the API's fields, and values as the flags of the command take them. Equal messages have equal bytes.
func encode(m proto.Message) ([]byte, error) {
	var b bytes.Buffer
	if err := encodeMessage(&b, m.ProtoReflect()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func encodeMessage(b *bytes.Buffer, m protoreflect.Message) error {
	switch known := m.Interface().(type) {
	case *durationpb.Duration:
		return encodeValue(b, Duration(known))
	case *timestamppb.Timestamp:
		return encodeValue(b, known.AsTime().UTC().Format(time.RFC3339Nano))
	case *fieldmaskpb.FieldMask:
		return encodeValue(b, strings.Join(known.GetPaths(), ","))
	}
	b.WriteByte('{')
	fields := m.Descriptor().Fields()
	first := true
	for i := range fields.Len() {
		f := fields.Get(i)
		if absent(m, f) {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		fmt.Fprintf(b, "%q:", f.Name())
		if err := encodeField(b, f, m.Get(f)); err != nil {
			return fmt.Errorf("field %s: %w", f.FullName(), err)
		}
	}
	b.WriteByte('}')
	return nil
}

// absent reports whether a field is left out: one that is not set where that can be told, an empty text, and the
// unspecified value of an enumeration. Lists, maps, booleans and plain numbers always have a value.
func absent(m protoreflect.Message, f protoreflect.FieldDescriptor) bool {
	switch {
	case f.IsList(), f.IsMap():
		return false
	case f.HasPresence():
		return !m.Has(f)
	}
	switch f.Kind() {
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.EnumKind:
		return !m.Has(f)
	default:
		return false
	}
}

func encodeField(b *bytes.Buffer, f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch {
	case f.IsList():
		return encodeList(b, f, v.List())
	case f.IsMap():
		return encodeMap(b, f, v.Map())
	}
	return encodeSingular(b, f, v)
}

func encodeList(b *bytes.Buffer, f protoreflect.FieldDescriptor, list protoreflect.List) error {
	b.WriteByte('[')
	for i := range list.Len() {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encodeSingular(b, f, list.Get(i)); err != nil {
			return err
		}
	}
	b.WriteByte(']')
	return nil
}

func encodeMap(b *bytes.Buffer, f protoreflect.FieldDescriptor, m protoreflect.Map) error {
	values := map[string]protoreflect.Value{}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		values[k.String()] = v
		return true
	})
	b.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := encodeValue(b, key); err != nil {
			return err
		}
		b.WriteByte(':')
		if err := encodeSingular(b, f.MapValue(), values[key]); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func encodeSingular(b *bytes.Buffer, f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	switch f.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return encodeMessage(b, v.Message())
	case protoreflect.EnumKind:
		return encodeValue(b, enumname.Name(f.Enum(), v.Enum()))
	case protoreflect.BytesKind:
		return encodeValue(b, textOf(v.Bytes()))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind, protoreflect.Uint64Kind,
		protoreflect.Fixed64Kind: // which programs that read numbers as floating point would round
		return encodeValue(b, v.String())
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		if x := v.Float(); math.IsNaN(x) || math.IsInf(x, 0) {
			return encodeValue(b, v.String())
		}
	default:
	}
	return encodeValue(b, v.Interface())
}

// textOf returns PEM and JSON documents as text, and other bytes in base64.
func textOf(raw []byte) string {
	document := bytes.HasPrefix(raw, []byte("-----BEGIN ")) ||
		(bytes.HasPrefix(raw, []byte("{")) || bytes.HasPrefix(raw, []byte("["))) && json.Valid(raw)
	if document && utf8.Valid(raw) {
		return string(raw)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func encodeValue(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	b.Truncate(b.Len() - 1) // the line break
	return nil
}
