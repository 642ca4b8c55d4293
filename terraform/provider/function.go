package provider

import (
	"context"

	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/function"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/ententehq/entente/bundle"
	"github.com/ententehq/entente/client"
)

// pure is a function of the provider: texts in, one value out, no call of a cluster.
type pure struct {
	name, text string
	parameters []function.Parameter
	returns    function.Return
	// of returns the value, or why an argument is refused and which.
	of func(args []string) (value any, fault int64, err error)
}

// Metadata implements function.Function.
func (p pure) Metadata(_ context.Context, _ function.MetadataRequest, w *function.MetadataResponse) {
	w.Name = p.name
}

// Definition implements function.Function.
func (p pure) Definition(_ context.Context, _ function.DefinitionRequest, w *function.DefinitionResponse) {
	w.Definition = function.Definition{
		Summary: p.text, MarkdownDescription: p.text, Parameters: p.parameters, Return: p.returns,
	}
}

// Run implements function.Function.
func (p pure) Run(ctx context.Context, r function.RunRequest, w *function.RunResponse) {
	args := make([]string, len(p.parameters))
	for i := range args {
		if w.Error = r.Arguments.GetArgument(ctx, i, &args[i]); w.Error != nil {
			return
		}
	}
	value, fault, err := p.of(args)
	if err != nil {
		w.Error = function.NewArgumentFuncError(fault, sentence(err.Error()))
		return
	}
	w.Error = w.Result.Set(ctx, value)
}

func text(name, of string) function.Parameter {
	return function.StringParameter{Name: name, MarkdownDescription: of}
}

// functions are all functions of the provider.
func functions() []func() function.Function {
	document := []function.Parameter{
		text("trust_domain", "The trust domain of the bundle."), text("document", "The SPIFFE bundle document."),
	}
	parse := func(args []string) (*bundle.Bundle, int64, error) {
		td, err := bundle.ParseTrustDomain(args[0])
		if err != nil {
			return nil, 0, err
		}
		b, _, err := bundle.Parse(td, []byte(args[1]))
		return b, 1, err
	}
	parts := map[string]attr.Type{
		"x509_authorities": types.Int64Type, "jwt_authorities": types.Int64Type, "sequence": types.Int64Type,
		"refresh_hint": types.StringType, "left_out": types.Int64Type, "pem": types.StringType,
	}
	type parsed struct {
		X509        int64   `tfsdk:"x509_authorities"`
		JWT         int64   `tfsdk:"jwt_authorities"`
		Sequence    *int64  `tfsdk:"sequence"`
		RefreshHint *string `tfsdk:"refresh_hint"`
		LeftOut     int64   `tfsdk:"left_out"`
		PEM         string  `tfsdk:"pem"`
	}
	type id struct {
		TrustDomain string `tfsdk:"trust_domain"`
		Path        string `tfsdk:"path"`
	}
	all := []pure{
		{
			name: "parse_spiffe_id", text: "The trust domain and the path of a SPIFFE ID.",
			parameters: []function.Parameter{text("id", "The SPIFFE ID.")},
			returns: function.ObjectReturn{AttributeTypes: map[string]attr.Type{
				"trust_domain": types.StringType, "path": types.StringType,
			}},
			of: func(args []string) (any, int64, error) {
				parsed, err := bundle.ParseID(args[0])
				return id{parsed.TrustDomain().Name(), parsed.Path()}, 0, err
			},
		},
		{
			name: "parse_bundle", text: "What a SPIFFE bundle document has, by the rules by which a cluster reads it.",
			parameters: document, returns: function.ObjectReturn{AttributeTypes: parts},
			of: func(args []string) (any, int64, error) {
				b, fault, err := parse(args)
				if err != nil {
					return nil, fault, err
				}
				out := parsed{
					X509: int64(len(b.X509Authorities())), JWT: int64(len(b.JWTAuthorities())),
					LeftOut: int64(b.LeftOut()), PEM: string(b.PEM()),
				}
				if n, ok := b.Sequence(); ok {
					sequence := int64(n) // a document's sequence has 63 bits at most
					out.Sequence = &sequence
				}
				if d, ok := b.RefreshHint(); ok {
					hint := d.String()
					out.RefreshHint = &hint
				}
				return out, 0, nil
			},
		},
		{
			name: "invitation_token", text: "The token of an `entente_federation_invitation` or an " +
				"`entente_join_token`: its public part, joined with the secret that it was made from.",
			parameters: []function.Parameter{
				text("public_part", "The `public_part` of the resource."),
				text("secret", "The `value` of the ephemeral `entente_secret` that the resource has as `secret_wo`."),
			},
			returns: function.StringReturn{},
			of: func(args []string) (any, int64, error) {
				secret, err := parseSecret(args[1])
				if err != nil {
					return nil, 1, err
				}
				joined, err := client.JoinToken(args[0], secret)
				return joined, 0, err
			},
		},
		{
			name: "bundle_to_pem", text: "The X.509 authorities of a SPIFFE bundle document as PEM.",
			parameters: document, returns: function.StringReturn{},
			of: func(args []string) (any, int64, error) {
				b, fault, err := parse(args)
				if err != nil {
					return nil, fault, err
				}
				return string(b.PEM()), 0, nil
			},
		},
	}
	var constructors []func() function.Function
	for _, p := range all {
		constructors = append(constructors, func() function.Function { return p })
	}
	return constructors
}
