package provider

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timetypes/timetypes"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral"
	"github.com/hashicorp/terraform-plugin-framework/ephemeral/schema"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/protobuf/types/known/durationpb"

	ententev1 "github.com/ententehq/entente/api/entente/v1"
	"github.com/ententehq/entente/client"
)

// opened is a kind of ephemeral resource. Terraform opens one at every plan as well as at apply, so that opening it
// writes nothing in the cluster. M is the model of its attributes.
type opened[M any] struct {
	name, text string
	attributes map[string]schema.Attribute
	// open sets the computed attributes.
	open func(ctx context.Context, c *client.Client, m *M) error

	client *client.Client
}

func ephemeralOf[M any](o opened[M]) func() ephemeral.EphemeralResource {
	return func() ephemeral.EphemeralResource { one := o; return &one }
}

// Metadata implements ephemeral.EphemeralResource.
func (o *opened[M]) Metadata(_ context.Context, m ephemeral.MetadataRequest, w *ephemeral.MetadataResponse) {
	w.TypeName = m.ProviderTypeName + "_" + o.name
}

// Schema implements ephemeral.EphemeralResource.
func (o *opened[M]) Schema(_ context.Context, _ ephemeral.SchemaRequest, w *ephemeral.SchemaResponse) {
	w.Schema = schema.Schema{MarkdownDescription: o.text, Attributes: o.attributes}
}

// Configure implements ephemeral.EphemeralResourceWithConfigure.
func (o *opened[M]) Configure(_ context.Context, c ephemeral.ConfigureRequest, w *ephemeral.ConfigureResponse) {
	o.client = configured(c.ProviderData, &w.Diagnostics).client
}

// Open implements ephemeral.EphemeralResource.
func (o *opened[M]) Open(ctx context.Context, r ephemeral.OpenRequest, w *ephemeral.OpenResponse) {
	var m M
	w.Diagnostics.Append(r.Config.Get(ctx, &m)...)
	if w.Diagnostics.HasError() {
		return
	}
	if err := o.open(ctx, o.client, &m); err != nil {
		report(&w.Diagnostics, "Could not open "+o.name, err)
		return
	}
	w.Diagnostics.Append(w.Result.Set(ctx, m)...)
}

// secretBytes is the size of a secret: more than can be guessed.
const secretBytes = 32

type secretModel struct {
	Value  types.String `tfsdk:"value"`
	SHA256 types.String `tfsdk:"sha256"`
}

type x509Model struct {
	SPIFFEID    types.String         `tfsdk:"spiffe_id"`
	TTL         timetypes.GoDuration `tfsdk:"ttl"`
	DNSNames    types.List           `tfsdk:"dns_names"`
	Certificate types.String         `tfsdk:"certificate"`
	PrivateKey  types.String         `tfsdk:"private_key"`
	Bundle      types.String         `tfsdk:"bundle"`
	ExpireTime  types.String         `tfsdk:"expire_time"`
}

type jwtModel struct {
	SPIFFEID   types.String         `tfsdk:"spiffe_id"`
	Audience   types.List           `tfsdk:"audience"`
	TTL        timetypes.GoDuration `tfsdk:"ttl"`
	Token      types.String         `tfsdk:"token"`
	ExpireTime types.String         `tfsdk:"expire_time"`
}

// ephemerals are all ephemeral resources.
func ephemerals() []func() ephemeral.EphemeralResource {
	made := func(text string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, MarkdownDescription: text}
	}
	hidden := func(text string) schema.StringAttribute {
		return schema.StringAttribute{Computed: true, Sensitive: true, MarkdownDescription: text}
	}
	of := schema.StringAttribute{
		Required: true, MarkdownDescription: "The SPIFFE ID.", Validators: []validator.String{spiffeID},
	}
	ttl := schema.StringAttribute{
		Optional: true, CustomType: timetypes.GoDurationType{},
		MarkdownDescription: "The lifetime. Default: that of the trust domain.",
	}
	return []func() ephemeral.EphemeralResource{
		ephemeralOf(opened[secretModel]{
			name: "secret",
			text: "A random secret of 256 bits, made on this machine. No cluster is called.",
			attributes: map[string]schema.Attribute{
				"value":  hidden("The secret: 43 characters of unpadded base64url."),
				"sha256": made("The SHA-256 of the 32 bytes of the secret, in hexadecimal."),
			},
			open: func(_ context.Context, _ *client.Client, m *secretModel) error {
				value := make([]byte, secretBytes)
				_, _ = rand.Read(value) // never fails
				text := base64.RawURLEncoding.EncodeToString(value)
				sum := sha256.Sum256(value)
				m.Value, m.SHA256 = types.StringValue(text), types.StringValue(hex.EncodeToString(sum[:]))
				return nil
			},
		}),
		ephemeralOf(opened[x509Model]{
			name: "x509_svid",
			text: "An X509-SVID for a key that is made on this machine.",
			attributes: map[string]schema.Attribute{
				"spiffe_id": of, "ttl": ttl,
				"dns_names": schema.ListAttribute{
					ElementType: types.StringType, Optional: true, MarkdownDescription: "DNS names of the certificate.",
				},
				"certificate": made("The certificate with its intermediates, PEM."),
				"private_key": hidden("The private key, PKCS #8 in PEM."),
				"bundle":      made("The X.509 authorities of the SVID's trust domain, PEM."),
				"expire_time": made("When it expires, RFC 3339."),
			},
			open: openX509,
		}),
		ephemeralOf(opened[jwtModel]{
			name: "jwt_svid",
			text: "A JWT-SVID.",
			attributes: map[string]schema.Attribute{
				"spiffe_id": of, "ttl": ttl,
				"audience": schema.ListAttribute{
					ElementType: types.StringType, Required: true, MarkdownDescription: "Who the token is for.",
				},
				"token":       hidden("The token."),
				"expire_time": made("When it expires, RFC 3339."),
			},
			open: openJWT,
		}),
	}
}

func openX509(ctx context.Context, c *client.Client, m *x509Model) error {
	id, err := spiffeid.FromString(m.SPIFFEID.ValueString())
	if err != nil {
		return err
	}
	cfg := client.X509SourceConfig{ID: id}
	if cfg.TTL, err = durationOf(m.TTL); err != nil {
		return err
	}
	if !m.DNSNames.IsNull() {
		if err := toError(m.DNSNames.ElementsAs(ctx, &cfg.DNSNames, false)); err != nil {
			return err
		}
	}
	issued, err := c.Issue(ctx, cfg)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(issued.SVID.PrivateKey)
	if err != nil {
		return err
	}
	var chain []byte
	for _, certificate := range issued.SVID.Certificates {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})...)
	}
	m.Certificate = types.StringValue(string(chain))
	m.PrivateKey = types.StringValue(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	m.Bundle = types.StringValue(string(issued.Bundle().PEM()))
	m.ExpireTime = types.StringValue(issued.Response.GetExpireTime().AsTime().Format(time.RFC3339))
	return nil
}

func openJWT(ctx context.Context, c *client.Client, m *jwtModel) error {
	r := &ententev1.IssueJWTSVIDRequest{SpiffeId: m.SPIFFEID.ValueString()}
	ttl, err := durationOf(m.TTL)
	if err != nil {
		return err
	}
	if ttl != 0 {
		r.Ttl = durationpb.New(ttl)
	}
	if err := toError(m.Audience.ElementsAs(ctx, &r.Audience, false)); err != nil {
		return err
	}
	issued, err := c.SVIDs().IssueJWTSVID(ctx, r)
	if err != nil {
		return err
	}
	m.Token = types.StringValue(issued.GetToken())
	m.ExpireTime = types.StringValue(issued.GetExpireTime().AsTime().Format(time.RFC3339))
	return nil
}

// durationOf returns an optional duration, or 0.
func durationOf(d timetypes.GoDuration) (time.Duration, error) {
	if d.IsNull() {
		return 0, nil
	}
	value, problems := d.ValueGoDuration()
	return value, toError(problems)
}
