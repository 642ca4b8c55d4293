package provider

import (
	"context"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ententehq/entente/internal/enumname"
)

// shape is the form in which Terraform has a field of an API message: the same name, a text for an enumeration, a
// duration, a time or bytes, and an object for a message.
type shape struct {
	field protoreflect.FieldDescriptor
	// parts are the shapes of the fields of a message, by name. Empty for everything else.
	parts []shape
}

const (
	durationName  = "google.protobuf.Duration"
	timestampName = "google.protobuf.Timestamp"
)

// shapeOf returns the shape of a field with all its parts.
func shapeOf(f protoreflect.FieldDescriptor) shape {
	s := shape{field: f}
	if f.IsMap() || f.Message() == nil || isScalarMessage(f.Message()) {
		return s
	}
	for i := range f.Message().Fields().Len() {
		s.parts = append(s.parts, shapeOf(f.Message().Fields().Get(i)))
	}
	return s
}

func isScalarMessage(m protoreflect.MessageDescriptor) bool {
	return m.FullName() == durationName || m.FullName() == timestampName
}

func (s shape) name() string { return string(s.field.Name()) }

func (s shape) isDuration() bool {
	return s.field.Message() != nil && s.field.Message().FullName() == durationName
}

// single returns the type of one value: of the field itself, or of an element of it.
func (s shape) single() attr.Type {
	switch {
	case len(s.parts) > 0:
		of := map[string]attr.Type{}
		for _, part := range s.parts {
			of[part.name()] = part.whole()
		}
		return types.ObjectType{AttrTypes: of}
	case s.isDuration():
		return timetypes.GoDurationType{}
	case s.field.Kind() == protoreflect.BoolKind:
		return types.BoolType
	case isNumber(s.field.Kind()):
		return types.Int64Type
	default:
		return types.StringType
	}
}

// whole returns the type of the field.
func (s shape) whole() attr.Type {
	switch {
	case s.field.IsMap():
		return types.MapType{ElemType: shape{field: s.field.MapValue()}.single()}
	case s.field.IsList():
		return types.ListType{ElemType: s.single()}
	default:
		return s.single()
	}
}

func isNumber(k protoreflect.Kind) bool {
	return slices.Contains([]protoreflect.Kind{
		protoreflect.Int32Kind, protoreflect.Uint32Kind, protoreflect.Int64Kind, protoreflect.Uint64Kind,
	}, k)
}

// value returns the field of a message as Terraform has it. A field that the message does not have is null, or if
// zeros is set and the field has no presence, its zero value.
func (s shape) value(m protoreflect.Message, zeros bool) tftypes.Value {
	of := terraformType(s.whole())
	if !m.Has(s.field) && (!zeros || s.field.HasPresence()) {
		return tftypes.NewValue(of, nil)
	}
	v := m.Get(s.field)
	switch {
	case s.field.IsMap():
		values := map[string]tftypes.Value{}
		element := shape{field: s.field.MapValue()}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			values[k.String()] = element.element(v)
			return true
		})
		return tftypes.NewValue(of, values)
	case s.field.IsList():
		values := make([]tftypes.Value, v.List().Len())
		for i := range values {
			values[i] = s.element(v.List().Get(i))
		}
		return tftypes.NewValue(of, values)
	default:
		return s.element(v)
	}
}

// element returns one value as Terraform has it.
func (s shape) element(v protoreflect.Value) tftypes.Value {
	of := terraformType(s.single())
	switch {
	case len(s.parts) > 0:
		values := map[string]tftypes.Value{}
		for _, part := range s.parts {
			values[part.name()] = part.value(v.Message(), false)
		}
		return tftypes.NewValue(of, values)
	case s.field.Message() != nil:
		switch m := v.Message().Interface().(type) {
		case *durationpb.Duration:
			return tftypes.NewValue(of, m.AsDuration().String())
		case *timestamppb.Timestamp:
			return tftypes.NewValue(of, m.AsTime().Format(time.RFC3339))
		}
	case s.field.Kind() == protoreflect.BytesKind:
		return tftypes.NewValue(of, string(v.Bytes()))
	case s.field.Kind() == protoreflect.EnumKind:
		return tftypes.NewValue(of, enumname.Name(s.field.Enum(), v.Enum()))
	case s.field.Kind() == protoreflect.BoolKind:
		return tftypes.NewValue(of, v.Bool())
	case s.field.Kind() == protoreflect.Uint32Kind || s.field.Kind() == protoreflect.Uint64Kind:
		return tftypes.NewValue(of, new(big.Float).SetUint64(v.Uint()))
	case isNumber(s.field.Kind()):
		return tftypes.NewValue(of, v.Int())
	}
	return tftypes.NewValue(of, v.String())
}

// set puts a value of Terraform into a message. Null leaves the field absent, and so does what is not known.
func (s shape) set(m protoreflect.Message, v tftypes.Value) error {
	if v.IsNull() || !v.IsFullyKnown() {
		return nil
	}
	switch {
	case s.field.IsMap():
		var values map[string]tftypes.Value
		if err := v.As(&values); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
		for key, value := range values {
			element, err := shape{field: s.field.MapValue()}.parse(value, nil)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			m.Mutable(s.field).Map().Set(protoreflect.ValueOfString(key).MapKey(), element)
		}
		return nil
	case s.field.IsList():
		var values []tftypes.Value
		if err := v.As(&values); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
		list := m.Mutable(s.field).List()
		for _, value := range values {
			element, err := s.parse(value, list.NewElement)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name(), err)
			}
			list.Append(element)
		}
		return nil
	default:
		value, err := s.parse(v, func() protoreflect.Value { return m.NewField(s.field) })
		if err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
		m.Set(s.field, value)
		return nil
	}
}

// parse returns one value as the API has it. fresh makes an empty message.
func (s shape) parse(v tftypes.Value, fresh func() protoreflect.Value) (protoreflect.Value, error) {
	var none protoreflect.Value
	switch {
	case len(s.parts) > 0:
		var values map[string]tftypes.Value
		if err := v.As(&values); err != nil {
			return none, err
		}
		message := fresh()
		for _, part := range s.parts {
			if value, given := values[part.name()]; given {
				if err := part.set(message.Message(), value); err != nil {
					return none, err
				}
			}
		}
		return message, nil
	case s.field.Kind() == protoreflect.BoolKind:
		var b bool
		err := v.As(&b)
		return protoreflect.ValueOfBool(b), err
	case isNumber(s.field.Kind()):
		var n big.Float
		if err := v.As(&n); err != nil {
			return none, err
		}
		return s.number(&n)
	}
	var text string
	if err := v.As(&text); err != nil {
		return none, err
	}
	return s.fromText(text)
}

func (s shape) number(n *big.Float) (protoreflect.Value, error) {
	whole, accuracy := n.Int64()
	const most32 = 1<<32 - 1
	if accuracy != big.Exact || whole < 0 || s.field.Kind() == protoreflect.Uint32Kind && whole > most32 {
		return protoreflect.Value{}, fmt.Errorf("%s is not a whole number in the range of the API", n)
	}
	switch s.field.Kind() {
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(whole)), nil
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(whole)), nil
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(whole)), nil
	default:
		return protoreflect.ValueOfInt64(whole), nil
	}
}

func (s shape) fromText(text string) (protoreflect.Value, error) {
	switch {
	case s.isDuration():
		d, err := time.ParseDuration(text)
		return protoreflect.ValueOfMessage(durationpb.New(d).ProtoReflect()), err
	case s.field.Message() != nil:
		at, err := time.Parse(time.RFC3339, text)
		return protoreflect.ValueOfMessage(timestamppb.New(at).ProtoReflect()), err
	case s.field.Kind() == protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(text)), nil
	case s.field.Kind() == protoreflect.EnumKind:
		n, ok := enumname.Number(s.field.Enum(), text)
		if !ok {
			return protoreflect.Value{}, fmt.Errorf("%q is none of %v", text, enumname.All(s.field.Enum()))
		}
		return protoreflect.ValueOfEnum(n), nil
	default:
		return protoreflect.ValueOfString(text), nil
	}
}

// terraformType returns how Terraform itself has values of a type.
func terraformType(t attr.Type) tftypes.Type { return t.TerraformType(context.Background()) }
