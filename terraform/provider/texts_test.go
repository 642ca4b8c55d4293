package provider

import (
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	"github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/stretchr/testify/assert"
)

// Every attribute of every data source is described, the nested ones too.
func TestEveryAttributeIsDescribed(t *testing.T) {
	for _, of := range dataSources() {
		var name datasource.MetadataResponse
		var shown datasource.SchemaResponse
		of().Metadata(t.Context(), datasource.MetadataRequest{ProviderTypeName: providerName}, &name)
		of().Schema(t.Context(), datasource.SchemaRequest{}, &shown)
		assertDescribed(t, name.TypeName, shown.Schema.Attributes)
	}
}

func assertDescribed(t *testing.T, within string, all map[string]schema.Attribute) {
	t.Helper()
	for name, a := range all {
		path := within + "." + name
		assert.NotEmpty(t, a.GetMarkdownDescription(), path)
		switch a := a.(type) {
		case schema.ListNestedAttribute:
			assertDescribed(t, path, a.NestedObject.Attributes)
		case schema.SingleNestedAttribute:
			assertDescribed(t, path, a.Attributes)
		}
	}
}
