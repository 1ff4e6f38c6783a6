-- Health of a RenderJob for Argo CD. Put it under `resource.customizations.health.dreamforge.dev_RenderJob` in the
-- ConfigMap argocd-cm (docs/gitops.md). Without it Argo CD has no health for the kind at all.
local health = { status = "Progressing", message = "The operator has not seen this yet" }

if obj.status == nil or obj.status.observedGeneration == nil then
  return health
end
if obj.status.observedGeneration < obj.metadata.generation then
  return health
end

local conditions = {}
for _, condition in ipairs(obj.status.conditions or {}) do
  conditions[condition.type] = condition
end

local function is(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

local function answer(status, name)
  local condition = conditions[name] or {}
  return { status = status, message = (condition.reason or "") .. ": " .. (condition.message or "") }
end

if is("Stalled") then
  return answer("Degraded", "Stalled")
end
if is("Suspended") then
  return answer("Suspended", "Suspended")
end
if is("Ready") then
  return answer("Healthy", "Ready")
end
if conditions["Ready"] ~= nil then
  return answer("Progressing", "Ready")
end
return health
