package provider

import (
	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework-validators/stringvalidator"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	data "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/booldefault"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/boolplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/int64planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/listplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/objectplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/ententehq/entente/internal/enumname"
)

// mode is who sets an attribute of a resource.
type mode int

const (
	// required attributes are set by the configuration.
	required mode = iota
	// optional attributes are set by the configuration, and null without it.
	optional
	// defaulted attributes are set by the configuration, or else by the server.
	defaulted
	// computed attributes are set by the server once, when the resource is made.
	computed
)

// attribute is a field of an API message as an attribute of a resource.
type attribute struct {
	name string
	mode mode
	text string
	// on means that a flag is true unless the configuration sets it; its mode is defaulted.
	on bool
	// replaces means that a change makes a new resource, because the API has no update of the field.
	replaces bool
	// checks are for texts, and for the elements of a list of texts.
	checks []validator.String
	// parts are the attributes of a message. Fields that have none cannot be set.
	parts []attribute
}

// bound is an attribute with the field that it is.
type bound struct {
	attribute
	shape
	parts []bound
}

// bind finds the fields of attributes in a message. A name without a field is a defect.
func bind(m protoreflect.MessageDescriptor, attributes []attribute) []bound {
	all := make([]bound, len(attributes))
	for i, a := range attributes {
		field := m.Fields().ByName(protoreflect.Name(a.name))
		if field == nil {
			panic(string(m.FullName()) + " has no field " + a.name)
		}
		all[i] = bound{attribute: a, shape: shape{field: field}}
		if len(a.parts) > 0 {
			all[i].parts = bind(field.Message(), a.parts)
			for _, part := range all[i].parts {
				all[i].shape.parts = append(all[i].shape.parts, part.shape)
			}
		}
	}
	return all
}

// zeros reports whether an absent value is the zero value and not null.
func (b bound) zeros() bool { return b.mode == defaulted || b.mode == computed || b.mode == required }

// schema returns the schema of an attribute of a resource.
func (b bound) schema() schema.Attribute {
	isRequired, isOptional := b.mode == required, b.mode == optional || b.mode == defaulted
	isComputed := b.mode == defaulted || b.mode == computed
	switch t := b.whole(); {
	case len(b.parts) > 0 && b.field.IsList():
		return schema.ListNestedAttribute{
			NestedObject: schema.NestedAttributeObject{Attributes: schemas(b.parts)}, MarkdownDescription: b.text,
			Required: isRequired, Optional: isOptional, Computed: isComputed,
			PlanModifiers: modifiers(b, listplanmodifier.UseStateForUnknown, listplanmodifier.RequiresReplace),
		}
	case len(b.parts) > 0:
		return schema.SingleNestedAttribute{
			Attributes: schemas(b.parts), MarkdownDescription: b.text,
			Required: isRequired, Optional: isOptional, Computed: isComputed,
			PlanModifiers: modifiers(b, objectplanmodifier.UseStateForUnknown, objectplanmodifier.RequiresReplace),
		}
	case b.field.IsMap():
		return schema.MapAttribute{
			ElementType: t.(attr.TypeWithElementType).ElementType(), MarkdownDescription: b.text,
			Required: isRequired, Optional: isOptional, Computed: isComputed,
		}
	case b.field.IsList():
		return schema.ListAttribute{
			ElementType: t.(attr.TypeWithElementType).ElementType(), MarkdownDescription: b.text,
			Required: isRequired, Optional: isOptional, Computed: isComputed,
			PlanModifiers: modifiers(b, listplanmodifier.UseStateForUnknown, listplanmodifier.RequiresReplace),
			Validators:    eachText(b.checks),
		}
	case b.field.Kind() == protoreflect.BoolKind:
		flag := schema.BoolAttribute{
			MarkdownDescription: b.text, Required: isRequired, Optional: isOptional, Computed: isComputed,
			PlanModifiers: modifiers(b, boolplanmodifier.UseStateForUnknown, boolplanmodifier.RequiresReplace),
		}
		if b.on {
			flag.Default = booldefault.StaticBool(true)
		}
		return flag
	case isNumber(b.field.Kind()):
		return schema.Int64Attribute{
			MarkdownDescription: b.text, Required: isRequired, Optional: isOptional, Computed: isComputed,
			PlanModifiers: modifiers(b, int64planmodifier.UseStateForUnknown, int64planmodifier.RequiresReplace),
		}
	default:
		text := schema.StringAttribute{
			MarkdownDescription: b.text, Required: isRequired, Optional: isOptional, Computed: isComputed,
			PlanModifiers: modifiers(b, stringplanmodifier.UseStateForUnknown, stringplanmodifier.RequiresReplace),
			Validators:    b.checks,
		}
		if b.isDuration() {
			text.CustomType = timetypes.GoDurationType{}
			text.PlanModifiers = append(text.PlanModifiers, same{sameDuration})
		}
		if b.field.Kind() == protoreflect.BytesKind {
			text.PlanModifiers = append(text.PlanModifiers, same{sameContent})
		}
		if b.field.Kind() == protoreflect.EnumKind {
			text.Validators = append(text.Validators, stringvalidator.OneOf(enumname.All(b.field.Enum())...))
		}
		return text
	}
}

// modifiers returns the plan modifiers of an attribute, made by those of its type.
func modifiers[M any](b bound, keep, replace func() M) (all []M) {
	if b.mode == defaulted || b.mode == computed {
		all = append(all, keep())
	}
	if b.replaces {
		all = append(all, replace())
	}
	return all
}

func schemas(all []bound) map[string]schema.Attribute {
	of := map[string]schema.Attribute{}
	for _, b := range all {
		of[b.attribute.name] = b.schema()
	}
	return of
}

// lookedUp returns the schema of an attribute that the configuration of a data source sets.
func (b bound) lookedUp() data.Attribute {
	if len(b.parts) == 0 {
		return data.StringAttribute{
			Required: b.mode == required, Optional: b.mode != required, MarkdownDescription: b.text,
			Validators: b.checks,
		}
	}
	of := map[string]data.Attribute{}
	for _, part := range b.parts {
		of[part.attribute.name] = part.lookedUp()
	}
	return data.SingleNestedAttribute{
		Attributes: of, Required: b.mode == required, Optional: b.mode != required, MarkdownDescription: b.text,
	}
}

// readOnly returns the schema of a field of a data source, which the server sets.
func readOnly(s shape) data.Attribute {
	text := described(s.field)
	parts := map[string]data.Attribute{}
	for _, part := range s.parts {
		parts[part.name()] = readOnly(part)
	}
	switch t := s.whole(); {
	case s.field.IsMap():
		return data.MapAttribute{
			ElementType: t.(attr.TypeWithElementType).ElementType(), Computed: true, MarkdownDescription: text,
		}
	case len(parts) > 0 && s.field.IsList():
		return data.ListNestedAttribute{
			NestedObject: data.NestedAttributeObject{Attributes: parts}, Computed: true, MarkdownDescription: text,
		}
	case len(parts) > 0:
		return data.SingleNestedAttribute{Attributes: parts, Computed: true, MarkdownDescription: text}
	case s.field.IsList():
		return data.ListAttribute{
			ElementType: t.(attr.TypeWithElementType).ElementType(), Computed: true, MarkdownDescription: text,
		}
	case s.field.Kind() == protoreflect.BoolKind:
		return data.BoolAttribute{Computed: true, MarkdownDescription: text}
	case isNumber(s.field.Kind()):
		return data.Int64Attribute{Computed: true, MarkdownDescription: text}
	case s.isDuration():
		return data.StringAttribute{
			CustomType: timetypes.GoDurationType{}, Computed: true, MarkdownDescription: text,
		}
	default:
		return data.StringAttribute{Computed: true, MarkdownDescription: text}
	}
}
