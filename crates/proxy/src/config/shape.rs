//! A JSON Schema, compiled: what may stand at each place of a document.
//!
//! Promise: understands all that schemars writes for serde types (structs, maps, lists, options, enums of
//! every tagging, `$ref`, `allOf`); what it does not understand it leaves to serde, which comes after it.

use std::collections::HashMap;

use regex::Regex;
use serde_json::Value as Json;

use super::tree::{Node, Value};

/// The kinds of value a place accepts, one bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kinds(u8);

impl Kinds {
    pub(crate) const NONE: Kinds = Kinds(0);
    pub(crate) const NULL: Kinds = Kinds(1);
    pub(crate) const BOOL: Kinds = Kinds(2);
    pub(crate) const INTEGER: Kinds = Kinds(4);
    pub(crate) const FLOAT: Kinds = Kinds(8);
    pub(crate) const STRING: Kinds = Kinds(16);
    pub(crate) const LIST: Kinds = Kinds(32);
    pub(crate) const TABLE: Kinds = Kinds(64);
    pub(crate) const ANY: Kinds = Kinds(127);
    /// A whole number is a number too.
    pub(crate) const NUMBER: Kinds = Kinds(4 | 8);

    pub(crate) fn of(node: &Node) -> Kinds {
        match node.value {
            Value::Null => Kinds::NULL,
            Value::Bool(_) => Kinds::BOOL,
            Value::Integer(_) => Kinds::INTEGER,
            Value::Float(_) => Kinds::FLOAT,
            Value::String(_) => Kinds::STRING,
            Value::Array(_) => Kinds::LIST,
            Value::Table(_) => Kinds::TABLE,
        }
    }

    fn of_constant(constant: &Json) -> Kinds {
        match constant {
            Json::Null => Kinds::NULL,
            Json::Bool(_) => Kinds::BOOL,
            Json::Number(_) => Kinds::NUMBER,
            Json::String(_) => Kinds::STRING,
            Json::Array(_) => Kinds::LIST,
            Json::Object(_) => Kinds::TABLE,
        }
    }

    fn named(name: &str) -> Kinds {
        match name {
            "null" => Kinds::NULL,
            "boolean" => Kinds::BOOL,
            "integer" => Kinds::INTEGER,
            "number" => Kinds::NUMBER,
            "string" => Kinds::STRING,
            "array" => Kinds::LIST,
            "object" => Kinds::TABLE,
            _ => Kinds::NONE,
        }
    }

    pub(crate) fn has(self, other: Kinds) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn or(self, other: Kinds) -> Kinds {
        Kinds(self.0 | other.0)
    }

    fn and(self, other: Kinds) -> Kinds {
        Kinds(self.0 & other.0)
    }

    /// In words: "a string or a table". Null is not a thing one is told to write.
    pub(crate) fn words(self) -> String {
        let number = if self.has(Kinds::FLOAT) { "a number" } else { "an integer" };
        let words: Vec<&str> = [
            (Kinds::STRING, "a string"),
            (Kinds::NUMBER, number),
            (Kinds::BOOL, "true or false"),
            (Kinds::LIST, "a list"),
            (Kinds::TABLE, "a table"),
        ]
        .into_iter()
        .filter_map(|(kind, word)| self.has(kind).then_some(word))
        .collect();
        match words.as_slice() {
            [] => "nothing".to_owned(),
            [one] => (*one).to_owned(),
            [most @ .., last] => format!("{} or {last}", most.join(", ")),
        }
    }
}

/// A place in [`Shapes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShapeId(usize);

/// What keys a table may have beside its properties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Additional {
    /// Any, with anything under them.
    #[default]
    Any,
    /// None.
    Forbidden,
    /// Any, with this under them: a map.
    Shaped(ShapeId),
}

/// What may stand at one place.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) kinds: Kinds,
    pub(crate) properties: HashMap<String, ShapeId>,
    /// The properties' names in the order of the documentation.
    pub(crate) names: Vec<String>,
    pub(crate) required: Vec<String>,
    pub(crate) additional: Additional,
    pub(crate) items: Option<ShapeId>,
    /// The values allowed; empty means all.
    pub(crate) constants: Vec<Json>,
    /// Exactly one of these must fit; empty means there is no choice.
    pub(crate) alternatives: Vec<ShapeId>,
    /// All of these must fit too.
    pub(crate) all: Vec<ShapeId>,
    pub(crate) least: Option<f64>,
    pub(crate) most: Option<f64>,
    pub(crate) fewest_items: u64,
    pub(crate) most_items: Option<u64>,
    pub(crate) shortest: u64,
    pub(crate) longest: Option<u64>,
    pub(crate) pattern: Option<Regex>,
    pub(crate) format: Option<String>,
    pub(crate) example: Option<Json>,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            kinds: Kinds::ANY,
            properties: HashMap::new(),
            names: Vec::new(),
            required: Vec::new(),
            additional: Additional::Any,
            items: None,
            constants: Vec::new(),
            alternatives: Vec::new(),
            all: Vec::new(),
            least: None,
            most: None,
            fewest_items: 0,
            most_items: None,
            shortest: 0,
            longest: None,
            pattern: None,
            format: None,
            example: None,
        }
    }
}

impl Shape {
    /// The one key of an externally tagged variant: `{ cors = ... }`.
    pub(crate) fn tag(&self) -> Option<(&str, ShapeId)> {
        let [name] = self.names.as_slice() else { return None };
        let alone = self.additional == Additional::Forbidden && self.required == [name.as_str()];
        self.properties.get(name).filter(|_| alone).map(|shape| (name.as_str(), *shape))
    }
}

/// A compiled schema.
#[derive(Debug)]
pub(crate) struct Shapes {
    shapes: Vec<Shape>,
    root: ShapeId,
}

impl Shapes {
    pub(crate) fn compile(schema: &Json) -> Shapes {
        let mut compiler = Compiler { schema, shapes: Vec::new(), references: HashMap::new() };
        let root = compiler.shape(schema);
        Shapes { shapes: compiler.shapes, root }
    }

    pub(crate) fn root(&self) -> ShapeId {
        self.root
    }

    pub(crate) fn get(&self, id: ShapeId) -> &Shape {
        &self.shapes[id.0]
    }

    /// What a choice offers in the end: alternatives that are choices themselves are opened.
    pub(crate) fn options(&self, id: ShapeId) -> Vec<ShapeId> {
        let mut options = Vec::new();
        let mut waiting = vec![id];
        let mut opened = Vec::new();
        while let Some(next) = waiting.pop() {
            let shape = self.get(next);
            if shape.alternatives.is_empty() || !shape.properties.is_empty() {
                options.push(next);
            } else if !opened.contains(&next) {
                opened.push(next);
                waiting.extend(shape.alternatives.iter().rev());
            }
        }
        options
    }

    /// The kinds of value a place accepts, its alternatives' included.
    pub(crate) fn kinds(&self, id: ShapeId) -> Kinds {
        self.options(id).iter().fold(Kinds::NONE, |kinds, option| kinds.or(self.get(*option).kinds))
    }
}

struct Compiler<'a> {
    schema: &'a Json,
    shapes: Vec<Shape>,
    references: HashMap<String, ShapeId>,
}

/// Keywords that say nothing about what may stand at a place.
const ANNOTATIONS: &[&str] = &["$ref", "description", "title", "default", "examples", "deprecated"];

impl Compiler<'_> {
    fn shape(&mut self, schema: &Json) -> ShapeId {
        if let Some(reference) = schema.get("$ref").and_then(Json::as_str) {
            let target = self.reference(reference);
            let alone = |object: &serde_json::Map<String, Json>| {
                object.keys().all(|key| ANNOTATIONS.contains(&key.as_str()))
            };
            if schema.as_object().is_none_or(alone) {
                return target;
            }
            let mut shape = self.keywords(schema);
            shape.kinds = shape.kinds.and(self.shapes[target.0].kinds);
            shape.all.push(target);
            return self.push(shape);
        }
        let shape = self.keywords(schema);
        self.push(shape)
    }

    fn push(&mut self, shape: Shape) -> ShapeId {
        self.shapes.push(shape);
        ShapeId(self.shapes.len() - 1)
    }

    fn reference(&mut self, reference: &str) -> ShapeId {
        if let Some(known) = self.references.get(reference) {
            return *known;
        }
        // The place is taken before the target is compiled: a type may hold itself.
        let id = self.push(Shape::default());
        self.references.insert(reference.to_owned(), id);
        let schema = self.schema;
        let Some(target) = reference.strip_prefix('#').and_then(|pointer| schema.pointer(pointer)) else {
            return id;
        };
        if target.get("$ref").is_some() {
            let target = self.shape(target);
            self.references.insert(reference.to_owned(), target);
            return target;
        }
        self.shapes[id.0] = self.keywords(target);
        id
    }

    fn keywords(&mut self, schema: &Json) -> Shape {
        let mut shape = Shape::default();
        if *schema == Json::Bool(false) {
            shape.kinds = Kinds::NONE;
        }
        let Some(schema) = schema.as_object() else { return shape };
        let number = |key: &str| schema.get(key).and_then(Json::as_f64);
        let count = |key: &str| schema.get(key).and_then(Json::as_u64);
        let list = |key: &str| schema.get(key).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);

        shape.kinds = match schema.get("type") {
            Some(Json::String(name)) => Kinds::named(name),
            Some(Json::Array(names)) => names
                .iter()
                .filter_map(Json::as_str)
                .fold(Kinds::NONE, |kinds, name| kinds.or(Kinds::named(name))),
            _ => Kinds::ANY,
        };
        shape.constants = list("enum").iter().chain(schema.get("const")).cloned().collect();
        if !schema.contains_key("type") && !shape.constants.is_empty() {
            let kinds = shape.constants.iter().map(Kinds::of_constant);
            shape.kinds = kinds.fold(Kinds::NONE, Kinds::or);
        }
        if schema.contains_key("enum") && shape.constants.is_empty() {
            shape.kinds = Kinds::NONE;
        }
        shape.format = schema.get("format").and_then(Json::as_str).map(str::to_owned);
        (shape.least, shape.most) = limits(shape.format.as_deref());
        shape.least = number("minimum").or(shape.least);
        shape.most = number("maximum").or(shape.most);
        shape.fewest_items = count("minItems").unwrap_or_default();
        shape.most_items = count("maxItems");
        shape.shortest = count("minLength").unwrap_or_default();
        shape.longest = count("maxLength");
        shape.pattern =
            schema.get("pattern").and_then(Json::as_str).and_then(|pattern| Regex::new(pattern).ok());
        shape.example = list("examples").first().cloned();
        shape.required = list("required").iter().filter_map(Json::as_str).map(str::to_owned).collect();
        self.children(schema, &mut shape);
        shape
    }

    fn children(&mut self, schema: &serde_json::Map<String, Json>, shape: &mut Shape) {
        let list = |key: &str| schema.get(key).and_then(Json::as_array).map_or(&[][..], Vec::as_slice);
        for (name, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
            let property = self.shape(property);
            shape.names.push(name.clone());
            shape.properties.insert(name.clone(), property);
        }
        shape.additional = match schema.get("additionalProperties") {
            // Keys by pattern (maps with numbers for keys) are serde's to judge.
            _ if schema.contains_key("patternProperties") => Additional::Any,
            Some(Json::Bool(false)) => Additional::Forbidden,
            Some(map @ Json::Object(_)) => Additional::Shaped(self.shape(map)),
            _ => Additional::Any,
        };
        shape.items = schema.get("items").filter(|items| items.is_object()).map(|items| self.shape(items));
        for choice in ["oneOf", "anyOf"] {
            let alternatives: Vec<ShapeId> = list(choice).iter().map(|one| self.shape(one)).collect();
            if schema.contains_key(choice) && alternatives.is_empty() {
                shape.kinds = Kinds::NONE;
            }
            shape.alternatives.extend(alternatives);
        }
        shape.all = list("allOf").iter().map(|one| self.shape(one)).collect();
    }
}

/// The range of the integer type that a schema's `format` names; schemars writes limits only for small ones.
fn limits(format: Option<&str>) -> (Option<f64>, Option<f64>) {
    match format {
        Some("uint8") => (Some(0.0), Some(f64::from(u8::MAX))),
        Some("uint16") => (Some(0.0), Some(f64::from(u16::MAX))),
        Some("uint32") => (Some(0.0), Some(f64::from(u32::MAX))),
        Some("uint64" | "uint") => (Some(0.0), None),
        Some("int8") => (Some(f64::from(i8::MIN)), Some(f64::from(i8::MAX))),
        Some("int16") => (Some(f64::from(i16::MIN)), Some(f64::from(i16::MAX))),
        Some("int32") => (Some(f64::from(i32::MIN)), Some(f64::from(i32::MAX))),
        _ => (None, None),
    }
}
