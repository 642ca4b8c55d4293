// Package enumname has the names that people read and write for the values of enumerations in the API: those of the
// protobuf definition in lower case, without the prefix that all values of the enumeration share. The zero value has no
// name.
package enumname

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// Of returns the name of a value, or "" for the zero value.
func Of(e protoreflect.Enum) string { return Name(e.Descriptor(), e.Number()) }

// Name returns the name of the value with a number, or "" for zero. A number that the descriptor does not have, which a
// newer version may send, is its own name.
func Name(d protoreflect.EnumDescriptor, n protoreflect.EnumNumber) string {
	if n == 0 {
		return ""
	}
	v := d.Values().ByNumber(n)
	if v == nil {
		return fmt.Sprint(n)
	}
	prefix := strings.TrimSuffix(string(d.Values().ByNumber(0).Name()), "UNSPECIFIED")
	return strings.ToLower(strings.TrimPrefix(string(v.Name()), prefix))
}

// All returns the names of all values of an enumeration, in the order of the definition.
func All(d protoreflect.EnumDescriptor) (names []string) {
	for i := range d.Values().Len() {
		if name := Name(d, d.Values().Get(i).Number()); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Number returns the number of the value with a name, and whether there is one.
func Number(d protoreflect.EnumDescriptor, name string) (protoreflect.EnumNumber, bool) {
	for i := range d.Values().Len() {
		if n := d.Values().Get(i).Number(); n != 0 && Name(d, n) == name {
			return n, true
		}
	}
	return 0, false
}
