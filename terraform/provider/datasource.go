package provider

import (
	"context"
	"slices"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-go/tftypes"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/ententehq/entente/client"
)

// lookup is a kind of data source: what the configuration gives, as fields of a request, and the message of the answer.
type lookup[Q, M proto.Message] struct {
	// name follows entente_ in the name of the data source.
	name string
	text string
	// given are the fields of Q that the configuration sets. All fields of M are read, under their own names.
	given []attribute
	// read returns the call of the API.
	read func(c *client.Client) call[Q, M]
}

// call is a call of the API.
type call[Q, M proto.Message] func(ctx context.Context, q Q, options ...grpc.CallOption) (M, error)

// source is the data source of a lookup, as the framework calls it.
type source[Q, M proto.Message] struct {
	lookup[Q, M]
	given  []bound
	shapes []shape
	client *client.Client
}

func dataSourceOf[Q, M proto.Message](l lookup[Q, M]) func() datasource.DataSource {
	given := bind(empty[Q]().ProtoReflect().Descriptor(), l.given)
	var shapes []shape
	fields := empty[M]().ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if name := string(fields.Get(i).Name()); !isGiven(given, name) && !slices.Contains(streamed, name) {
			shapes = append(shapes, shapeOf(fields.Get(i)))
		}
	}
	return func() datasource.DataSource { return &source[Q, M]{lookup: l, given: given, shapes: shapes} }
}

// streamed are the fields of answers that only pages and watches have.
var streamed = []string{"next_page_token", "difference"}

func isGiven(all []bound, name string) bool {
	for _, b := range all {
		if b.attribute.name == name {
			return true
		}
	}
	return false
}

// Metadata implements datasource.DataSource.
func (s *source[Q, M]) Metadata(_ context.Context, m datasource.MetadataRequest, w *datasource.MetadataResponse) {
	w.TypeName = m.ProviderTypeName + "_" + s.name
}

// Schema implements datasource.DataSource.
func (s *source[Q, M]) Schema(_ context.Context, _ datasource.SchemaRequest, w *datasource.SchemaResponse) {
	of := map[string]schema.Attribute{}
	for _, shape := range s.shapes {
		of[shape.name()] = readOnly(shape)
	}
	for _, b := range s.given {
		of[b.attribute.name] = b.lookedUp()
	}
	w.Schema = schema.Schema{MarkdownDescription: s.text, Attributes: of}
}

// Configure implements datasource.DataSourceWithConfigure.
func (s *source[Q, M]) Configure(_ context.Context, c datasource.ConfigureRequest, w *datasource.ConfigureResponse) {
	s.client = configured(c.ProviderData, &w.Diagnostics).client
}

// Read implements datasource.DataSource.
func (s *source[Q, M]) Read(ctx context.Context, r datasource.ReadRequest, w *datasource.ReadResponse) {
	q, values := empty[Q](), object(r.Config.Raw)
	for _, b := range s.given {
		if err := b.set(q.ProtoReflect(), values[b.attribute.name]); err != nil {
			w.Diagnostics.AddError("The configuration cannot be read", err.Error())
			return
		}
	}
	m, err := s.read(s.client)(ctx, q)
	if err != nil {
		report(&w.Diagnostics, "Could not read the "+strings.ReplaceAll(s.name, "_", " "), err)
		return
	}
	for _, shape := range s.shapes {
		values[shape.name()] = shape.value(m.ProtoReflect(), true)
	}
	w.State.Raw = tftypes.NewValue(r.Config.Raw.Type(), values)
}
